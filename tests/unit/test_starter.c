/* SPDX-License-Identifier: Apache-2.0 */
/* core/starter, core/errand and core/ring: what a confined thread has others do. */
#include "core/starter.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "core/errand.h"
#include "core/ring.h"
#include "tests/unit/test.h"

static struct starter *starter;
static atomic_uint entered[THREAD_KINDS];

static void enter(void *opaque, enum thread_kind kind)
{
	atomic_fetch_add(&entered[kind], 1);
}

static int call(void *opaque, int (*fn)(void *argument), void *argument, bool swift)
{
	return starter_call(starter, fn, argument, swift);
}

static const struct thread_filters filters = {.enter = enter, .call = call};

/* What a confined thread is to do, and what came of it. */
struct work {
	void (*fn)(struct work *work);
	int result, error;
	pid_t thread;
};

static void *run(void *opaque)
{
	struct work *work = opaque;

	work->fn(work);
	work->error = errno;
	return NULL;
}

/* Runs fn on a confined thread of a process that has a starter. */
static struct work confined(void (*fn)(struct work *work))
{
	struct work work = {.fn = fn};
	pthread_t thread;

	memset(entered, 0, sizeof(entered));
	CHECK_EQ(starter_create(&starter, NULL), 0);
	thread_set_filters(&filters);
	CHECK_EQ(starter_start(starter, NULL), 0);
	CHECK_EQ(thread_start(&thread, THREAD_VCPU, run, &work, "confined"), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	thread_set_filters(NULL);
	starter_destroy(starter);
	CHECK_EQ(entered[THREAD_VCPU], 1);
	return work;
}

static int tell_thread(void *argument)
{
	*(pid_t *)argument = (pid_t)syscall(SYS_gettid);
	return -ERANGE;
}

static void ask_for_the_thread(struct work *work)
{
	work->result = thread_call(tell_thread, &work->thread);
	work->result = work->thread == (pid_t)syscall(SYS_gettid) ? -EDEADLK : work->result;
}

static void a_confined_thread_has_a_call_made_on_another_one(void)
{
	struct work work = confined(ask_for_the_thread);

	CHECK_EQ(work.result, -ERANGE);
	CHECK(work.thread);
	CHECK_EQ(entered[THREAD_STARTER], 2); /* the starter and the one for the call */
}

static void what_is_not_confined_makes_its_calls_itself(void)
{
	pid_t thread = 0;

	CHECK_EQ(thread_call(tell_thread, &thread), -ERANGE);
	CHECK_EQ(thread, syscall(SYS_gettid));
}

static void *nothing(void *opaque)
{
	return opaque;
}

static void start_another(struct work *work)
{
	pthread_t thread;

	work->result = thread_start(&thread, THREAD_DISK, nothing, NULL, "disk");
	if (!work->result)
		pthread_join(thread, NULL);
}

static void the_starter_starts_the_threads_of_confined_ones(void)
{
	CHECK_EQ(confined(start_another).result, 0);
	CHECK_EQ(entered[THREAD_DISK], 1);
	CHECK_EQ(entered[THREAD_STARTER], 1);
}

/* ---- calls that wait ---- */

static int gates[2];

static int wait_for_the_gate(void *argument)
{
	eventfd_t count;

	eventfd_write(gates[0], 1);
	return eventfd_read(gates[1], &count) < 0 ? -errno : 0;
}

static void *wait_there(void *opaque)
{
	*(int *)opaque = thread_call(wait_for_the_gate, NULL);
	return NULL;
}

static void call_beside_one_that_waits(struct work *work)
{
	int waited = -1;
	eventfd_t count;
	pthread_t waits;

	if (thread_start(&waits, THREAD_MAIN, wait_there, &waited, "waits"))
		return;
	eventfd_read(gates[0], &count);
	work->result = thread_call(tell_thread, &work->thread);
	eventfd_write(gates[1], 1);
	pthread_join(waits, NULL);
	work->result = waited ? -EDEADLK : work->result;
}

static void a_call_that_waits_is_in_nobodys_way(void)
{
	gates[0] = eventfd(0, EFD_CLOEXEC);
	gates[1] = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(confined(call_beside_one_that_waits).result, -ERANGE);
	close(gates[0]);
	close(gates[1]);
}

/* ---- errands ---- */

static void open_what_is_missing(struct work *work)
{
	work->result = errand_open("/nonexistent", O_RDONLY | O_CLOEXEC, 0);
}

static void open_what_is_there(struct work *work)
{
	FILE *file = errand_fopen("/proc/self/status");
	char line[64] = "";

	work->result = file && fgets(line, sizeof(line), file) && strncmp(line, "Name:", 5) == 0;
	if (file)
		fclose(file);
}

static void an_errand_returns_what_the_call_does(void)
{
	struct work work = confined(open_what_is_missing);

	CHECK_EQ(work.result, -1);
	CHECK_EQ(work.error, ENOENT);
	CHECK_EQ(confined(open_what_is_there).result, 1);
}

static void use_sockets_and_names(struct work *work)
{
	struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};
	int fd = errand_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
	char text[64];

	work->result = fd >= 0 && errand_connect(fd, (const struct sockaddr *)&nobody, sizeof(nobody)) == -1 && errno == ENOENT &&
		       errand_socketpair(SOCK_STREAM, pair) == 0 && close(pair[0]) == 0 && close(pair[1]) == 0 &&
		       errand_unlink("/nonexistent/file") == -1 && errno == ENOENT &&
		       errand_readlink("/proc/self/exe", text, sizeof(text)) > 0;
	fd_close(&fd);
}

static void errands_make_sockets_and_remove_names(void)
{
	CHECK_EQ(confined(use_sockets_and_names).result, 1);
}

/* ---- rings ---- */

static int ring_result(struct io_uring *ring, bool fixed, unsigned int op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int result;

	io_uring_prep_rw((int)op, sqe, 0, NULL, 0, 0);
	sqe->flags |= fixed ? IOSQE_FIXED_FILE : 0;
	if (io_uring_submit_and_wait(ring, 1) < 0 || io_uring_peek_cqe(ring, &cqe))
		return -ENODATA;
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

static int zero_fd;

/* One bit for each thing that is as it must be. */
static void use_a_ring(struct work *work)
{
	static const uint8_t ops[] = {IORING_OP_READ};
	const struct ring_rules rules = {.ops = ops, .op_count = 1, .files = &zero_fd, .file_count = 1};
	struct io_uring ring;
	bool fixed;

	work->result = ring_create(&ring, 4, &rules, &fixed);
	if (work->result)
		return;
	work->result = (fixed ? 1 : 0) | (ring_enable(&ring) == 0 ? 2 : 0) |
		       (ring_result(&ring, true, IORING_OP_READ) == 0 ? 4 : 0) |
		       (ring_result(&ring, true, IORING_OP_WRITE) == -EACCES ? 8 : 0) |
		       (ring_result(&ring, false, IORING_OP_READ) == -EACCES ? 16 : 0) |
		       (ring_result(&ring, false, IORING_OP_OPENAT) == -EACCES ? 32 : 0) |
		       (io_uring_register_files_update(&ring, 0, &zero_fd, 1) == -EACCES ? 64 : 0) |
		       (io_uring_register_eventfd(&ring, zero_fd) == -EACCES ? 128 : 0);
	io_uring_queue_exit(&ring);
}

static void a_ring_does_only_what_it_is_for(void)
{
	zero_fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	CHECK(zero_fd >= 0);
	if (ring_probe() == -EPERM || ring_probe() == -ENOSYS)
		SKIP("there is no io_uring here");
	CHECK_EQ(confined(use_a_ring).result, 255);
	fd_close(&zero_fd);
}

TEST_MAIN(TEST(a_confined_thread_has_a_call_made_on_another_one), TEST(what_is_not_confined_makes_its_calls_itself),
	  TEST(the_starter_starts_the_threads_of_confined_ones), TEST(a_call_that_waits_is_in_nobodys_way),
	  TEST(an_errand_returns_what_the_call_does), TEST(errands_make_sockets_and_remove_names),
	  TEST(a_ring_does_only_what_it_is_for))
