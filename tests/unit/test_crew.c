/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core/crew: who fails first counts and breaks off the others, waits have a deadline, rounds, and a start that fails. Members
 * wait at a gate each, an eventfd, which the test or a break opens.
 */
#include "core/crew.h"

#include "core/monotonic.h"
#include "tests/unit/few_threads.h"
#include "tests/unit/test.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#define MEMBERS 4u
#define FOR_EVER 60000 /* ms, of which no test takes a part worth mentioning */

static struct crew *crew;
static struct err err;
static int gates[MEMBERS] = {-1, -1, -1, -1};
static int codes[MEMBERS]; /* what each member's work comes to */
static unsigned int begun, rounds[MEMBERS], breaks[MEMBERS];

static void pass_gate(unsigned int index)
{
	struct pollfd gate = {.fd = gates[index], .events = POLLIN};
	eventfd_t count;

	poll(&gate, 1, FOR_EVER);
	eventfd_read(gates[index], &count);
}

static int work(void *opaque, unsigned int index, struct err *why)
{
	__atomic_fetch_add(&begun, 1, __ATOMIC_RELAXED);
	pass_gate(index);
	if (breaks[index])
		return err_set(why, -ECONNRESET, "member %u was broken off", index);
	return codes[index] ? err_set(why, codes[index], "member %u", index) : 0;
}

/* Once through the gate a round. */
static int work_in_rounds(void *opaque, unsigned int index, struct err *why)
{
	int code = 0;

	while (!code && crew_next(crew, index)) {
		rounds[index]++;
		pass_gate(index);
		code = codes[index] ? err_set(why, codes[index], "member %u", index) : 0;
	}
	return code;
}

static void break_off(void *opaque, unsigned int index)
{
	breaks[index]++;
	eventfd_write(gates[index], 1);
}

static int begin(int (*fn)(void *opaque, unsigned int index, struct err *err))
{
	const struct crew_ops ops = {.work = fn, .break_off = break_off};

	begun = 0;
	memset(codes, 0, sizeof(codes));
	memset(rounds, 0, sizeof(rounds));
	memset(breaks, 0, sizeof(breaks));
	for (unsigned int i = 0; i < MEMBERS; i++) {
		fd_close(&gates[i]);
		gates[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	return crew_create(&ops, NULL, MEMBERS, THREAD_MEMORY, "test", &crew, &err);
}

static void open_gates(void)
{
	for (unsigned int i = 0; i < MEMBERS; i++)
		eventfd_write(gates[i], 1);
}

static bool has_failed(void)
{
	struct pollfd failed = {.fd = crew_fd(crew), .events = POLLIN};

	return poll(&failed, 1, 0) == 1;
}

static bool each_is(const unsigned int *counts, unsigned int count)
{
	for (unsigned int i = 0; i < MEMBERS; i++)
		if (counts[i] != count)
			return false;
	return true;
}

static void end(void)
{
	crew_destroy(crew);
	crew = NULL;
}

static void all_work_and_none_is_broken_off(void)
{
	CHECK_EQ(begin(work), 0);
	open_gates();
	CHECK(crew_wait(crew, -1, -1));
	CHECK_EQ(crew_result(crew, &err), 0);
	CHECK(!has_failed() && !crew_broken(crew));
	end();
	CHECK_EQ(begun, MEMBERS);
	CHECK(each_is(breaks, 0));
}

static void the_first_failure_counts(void)
{
	CHECK_EQ(begin(work), 0);
	codes[2] = -EIO;
	eventfd_write(gates[2], 1);
	CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
	CHECK_EQ(crew_result(crew, &err), -EIO);
	CHECK_STR(err.text, "member 2");
	CHECK(has_failed() && crew_broken(crew));
	CHECK(each_is(breaks, 1));
	crew_fail(crew, -EINVAL, &(struct err){"later"});
	CHECK_EQ(crew_result(crew, &err), -EIO);
	end();
	CHECK(each_is(breaks, 1));
}

static void a_deadline_passes(void)
{
	int64_t start = monotonic_ms();

	CHECK_EQ(begin(work), 0);
	for (unsigned int i = 1; i < MEMBERS; i++)
		eventfd_write(gates[i], 1);
	CHECK(!crew_wait(crew, -1, start + 20));
	CHECK(monotonic_ms() - start >= 20);
	CHECK(!crew_wait(crew, -1, 0));
	CHECK_EQ(crew_result(crew, &err), 0);
	eventfd_write(gates[0], 1);
	CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
	CHECK(crew_wait(crew, -1, 0));
	end();
}

static void a_wait_can_be_cancelled(void)
{
	int cancel_fd = eventfd(1, EFD_CLOEXEC);

	CHECK_EQ(begin(work), 0);
	CHECK(crew_wait(crew, cancel_fd, monotonic_ms() + FOR_EVER));
	CHECK_EQ(crew_result(crew, &err), -ECANCELED);
	CHECK_STR(err.text, "cancelled");
	CHECK(each_is(breaks, 1));
	end();
	close(cancel_fd);
}

/* Even if its members have become idle at the same time. */
static void a_cancelled_wait_is_one_for_an_idle_crew_too(void)
{
	int cancel_fd = eventfd(1, EFD_CLOEXEC);

	CHECK_EQ(begin(work_in_rounds), 0);
	CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
	CHECK(crew_wait(crew, cancel_fd, monotonic_ms() + FOR_EVER));
	CHECK_EQ(crew_result(crew, &err), -ECANCELED);
	end();
	close(cancel_fd);
}

static void the_end_breaks_off_who_is_at_work(void)
{
	CHECK_EQ(begin(work), 0);
	end();
	CHECK(each_is(breaks, 1));
	crew_destroy(NULL);
}

static void goes_on_in_rounds(void)
{
	CHECK_EQ(begin(work_in_rounds), 0);
	for (unsigned int round = 1; round <= 100; round++) {
		CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
		CHECK(each_is(rounds, round - 1));
		open_gates();
		crew_again(crew);
	}
	CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
	CHECK(each_is(rounds, 100));
	end();
	CHECK(each_is(breaks, 0));
}

static void no_round_follows_a_failure(void)
{
	CHECK_EQ(begin(work_in_rounds), 0);
	CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
	codes[1] = -EIO;
	eventfd_write(gates[1], 1);
	crew_again(crew);
	CHECK(crew_wait(crew, -1, monotonic_ms() + FOR_EVER));
	crew_again(crew);
	CHECK(crew_wait(crew, -1, 0));
	CHECK_EQ(crew_result(crew, &err), -EIO);
	CHECK_EQ(rounds[1], 1);
	CHECK(rounds[0] <= 1 && rounds[2] <= 1 && each_is(breaks, 1));
	end();
}

static size_t count_entries(const char *path)
{
	DIR *dir = opendir(path);
	size_t count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* A thread that was joined may be seen for a moment. */
static bool threads_become(size_t count)
{
	int64_t deadline = monotonic_ms() + FOR_EVER;

	while (count_entries("/proc/self/task") != count && monotonic_ms() < deadline)
		poll(NULL, 0, 1);
	return count_entries("/proc/self/task") == count;
}

static void a_start_that_fails_leaves_nothing(void)
{
	size_t threads = count_entries("/proc/self/task"), fds = count_entries("/proc/self/fd");

	for (int k = 0; k < (int)MEMBERS; k++) {
		threads_to_come = k;
		CHECK_EQ(begin(work), -EAGAIN);
		CHECK(!crew && strstr(err.text, "test"));
		CHECK_EQ(begun, 0);
		CHECK(each_is(breaks, 0));
		CHECK(threads_become(threads));
		CHECK_EQ(count_entries("/proc/self/fd"), fds);
	}
	threads_to_come = -1;
}

static void a_crew_of_none_is_idle(void)
{
	const struct crew_ops ops = {.work = work};

	CHECK_EQ(crew_create(&ops, NULL, 0, THREAD_MEMORY, "none", &crew, &err), 0);
	CHECK(crew_wait(crew, -1, 0));
	CHECK_EQ(crew_result(crew, &err), 0);
	end();
}

TEST_MAIN(TEST(all_work_and_none_is_broken_off), TEST(the_first_failure_counts), TEST(a_deadline_passes),
	  TEST(a_wait_can_be_cancelled), TEST(a_cancelled_wait_is_one_for_an_idle_crew_too),
	  TEST(the_end_breaks_off_who_is_at_work), TEST(goes_on_in_rounds), TEST(no_round_follows_a_failure),
	  TEST(a_start_that_fails_leaves_nothing), TEST(a_crew_of_none_is_idle))
