/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/memory_guard: whatever takes a mapped file away from a machine ends it, once, with one line; a thread that
 * touches what is gone ends the process with a line and a status; other faults are none of its business.
 */
#include "core/irq.h"
#include "tests/unit/log_pipe.h"
#include "tests/unit/test.h"
#include "vmm/snapshot/memory_guard.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SIZE MIB(1)
#define STATUS 7

static char path[64];
static int file = -1, lost_fd = -1;
static unsigned int lost;
static struct event_loop *loop;
static struct memory_guard *guard;
static struct guest_memory *memory;
static char *host;
static struct log_pipe lines = LOG_PIPE_CLOSED;

static void on_lost(void *opaque)
{
	__atomic_fetch_add(&lost, 1, __ATOMIC_ACQ_REL);
	eventfd_kick(lost_fd);
}

static void on_loop(void (*fn)(void *opaque))
{
	event_loop_call(loop, fn, NULL);
}

static void destroy_guard(void *opaque)
{
	memory_guard_destroy(take_ptr(guard));
}

static void start_guard(void *opaque)
{
	memory_guard_start(guard, memory, NULL);
}

static void tear_down(void)
{
	if (loop)
		on_loop(destroy_guard);
	event_loop_destroy(take_ptr(loop));
	guest_memory_destroy(take_ptr(memory));
	if (host)
		munmap(host, SIZE);
	host = NULL;
	fd_close(&file);
	log_pipe_close(&lines);
	fd_close(&lost_fd);
	if (*path)
		unlink(path);
	*path = 0;
}

/* A file of 0x11, mapped and guarded; the log goes to a pipe. */
static void set_up(void)
{
	static char bytes[SIZE];
	struct memory_guard_options options = {.what = path, .lost = on_lost, .exit_code = STATUS, .look_ms = 5};
	struct guest_region region = {.size = SIZE, .fd = -1};
	int fd;

	tear_down();
	memset(bytes, 0x11, sizeof(bytes));
	snprintf(path, sizeof(path), "/tmp/mvmm-guard-XXXXXX");
	fd = mkstemp(path);
	CHECK_EQ(write(fd, bytes, SIZE), SIZE);
	close(fd);
	file = open(path, O_RDONLY | O_CLOEXEC);
	log_pipe_open(&lines, LOG_INFO, "mvmm: ");
	lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lost = 0;
	host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	CHECK(host != MAP_FAILED);
	region.host = host;
	memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	CHECK_EQ(event_loop_create(&loop, NULL), 0);
	CHECK_EQ(event_loop_start(loop, "test", NULL), 0);
	options.fd = file;
	options.loop = loop;
	options.log = &lines.log;
	CHECK_EQ(memory_guard_create(&options, &guard, NULL), 0);
	on_loop(start_guard);
}

static void await_lost(void)
{
	struct pollfd wait = {.fd = lost_fd, .events = POLLIN};

	CHECK_EQ(poll(&wait, 1, 20000), 1);
}

/* What was logged: one line, or "". */
static const char *logged(void)
{
	const char *text = log_pipe_read(&lines);

	CHECK(!*text || strchr(text, '\n') == text + strlen(text) - 1);
	return text;
}

static bool has_watch(void)
{
	char link[64], name[64];
	bool found = false;

	for (int fd = 3; fd < 256 && !found; fd++) {
		ssize_t len;

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		len = readlink(name, link, sizeof(link) - 1);
		link[MAX(len, 0)] = 0;
		found = strstr(link, "inotify");
	}
	return found;
}

static void await_watch(void)
{
	for (int i = 0; i < 4000 && !has_watch(); i++)
		usleep(5000);
	CHECK(has_watch());
}

static void change(off_t size, const char *bytes)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (bytes)
		CHECK_EQ(pwrite(fd, bytes, strlen(bytes), 4096), (ssize_t)strlen(bytes));
	else
		CHECK_EQ(ftruncate(fd, size), 0);
	close(fd);
}

static void a_change_of_any_kind_is_told_once(void)
{
	static const struct {
		off_t size;
		const char *bytes, *line;
	} changes[] = {
		{0, NULL, " was truncated while this machine's memory is mapped from it; the machine ends\n"},
		{SIZE + 4096, NULL, " was extended while this machine's memory is mapped from it; the machine ends\n"},
		{0, "new", " was written to while this machine's memory is mapped from it; the machine ends\n"},
	};

	for (int watched = 0; watched < 2; watched++)
		for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
			const char *text;

			set_up();
			if (watched)
				await_watch();
			change(changes[i].size, changes[i].bytes);
			await_lost();
			change(changes[i].size ? 0 : 4096, NULL);
			CHECK(memory_guard_ask(guard, false));
			CHECK_EQ(lost, 1);
			text = logged();
			CHECK(strncmp(text, "mvmm: /tmp/", 11) == 0);
			CHECK_STR(strstr(text, " was "), changes[i].line);
			CHECK_STR(logged(), "");
		}
	tear_down();
}

/* inotify tells nothing of it before the writer closes the file. */
static void a_write_through_a_mapping_is_seen(void)
{
	int fd;
	char *map;

	set_up();
	await_watch();
	fd = open(path, O_RDWR | O_CLOEXEC);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	usleep(20000); /* more than a tick since the file was made */
	map[0] = 1;
	CHECK_EQ(lost, 0);
	munmap(map, 4096);
	close(fd);
	await_lost();
	CHECK(strstr(logged(), "was written to"));
	tear_down();
}

/* A user has few inotify instances, and machines are many. */
static void without_a_watch_it_is_looked_at(void)
{
	struct rlimit all, none;

	set_up();
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &all), 0);
	none = (struct rlimit){.rlim_cur = 1, .rlim_max = all.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	usleep(20000);
	CHECK_EQ(truncate(path, 4096), 0);
	await_lost();
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &all), 0);
	CHECK(strstr(logged(), "was truncated"));
	tear_down();
}

static void other_names_and_readers_are_no_change(void)
{
	char byte, other[80];
	int fd;

	set_up();
	await_watch();
	snprintf(other, sizeof(other), "%s-other", path);
	CHECK_EQ(rename(path, other), 0);
	fd = open(other, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(fd, &byte, 1), 1);
	close(fd);
	CHECK_EQ(chmod(other, 0400), 0);
	CHECK_EQ(unlink(other), 0);
	host[0] = 5;
	usleep(20000);
	CHECK_EQ(lost, 0);
	CHECK_STR(logged(), "");
	tear_down();
}

static void a_fault_of_a_vcpu_is_told(void)
{
	set_up();
	CHECK(!memory_guard_ask(guard, false));
	CHECK_EQ(lost, 0);
	CHECK(memory_guard_ask(guard, true));
	CHECK_EQ(lost, 1);
	CHECK(strstr(logged(), ": the guest's memory cannot be read any more; the machine ends\n"));
	tear_down();
}

static pthread_t loop_thread; /* of the process that dies */
static enum dying { NOWHERE, ON_THE_LOOPS_THREAD, ELSEWHERE } *dying; /* shared with it */

static void on_dying(void *opaque)
{
	*dying = pthread_equal(pthread_self(), loop_thread) ? ON_THE_LOOPS_THREAD : ELSEWHERE;
}

static void *touch(void *opaque)
{
	return (void *)(uintptr_t)*(volatile char *)opaque;
}

/* The same on a thread that its fault ends as it does those of a machine, whoever started it. */
static void *touch_unblocked(void *opaque)
{
	sigset_t bus;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
	return touch(opaque);
}

enum how { HERE, ON_ANOTHER_THREAD, BEHIND_A_DEAF_LOOP, OUTSIDE_OF_GUEST_MEMORY };

static void die_now(enum how how)
{
	char *outside = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, SIZE - 4096);
	struct rlimit no_core = {0, 0};
	pthread_t thread;
	sigset_t bus;

	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGBUS, SIG_DFL); /* not the sanitizer's */
	loop_thread = pthread_self();
	memory_guard_start(guard, memory, NULL); /* the parent's loop does not run here */
	sigemptyset(&bus);
	if (truncate(path, 0) < 0)
		_exit(90);
	if (how == ON_ANOTHER_THREAD || how == BEHIND_A_DEAF_LOOP) {
		sigaddset(&bus, SIGBUS);
		pthread_sigmask(how == BEHIND_A_DEAF_LOOP ? SIG_BLOCK : SIG_UNBLOCK, &bus, NULL);
		pthread_create(&thread, NULL, touch_unblocked, host);
		pthread_join(thread, NULL);
	}
	touch(how == OUTSIDE_OF_GUEST_MEMORY ? outside : host + 4096);
}

/* A process whose memory is gone; its status. */
static int die(enum how how)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		die_now(how);
		_exit(91);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* One that watches no file, so that only a signal ends it. */
static void set_up_blind(void)
{
	const struct memory_guard_options options = {
		.what = path, .fd = -1, .log = &lines.log, .lost = on_lost, .dying = on_dying, .exit_code = STATUS,
	};

	set_up();
	on_loop(destroy_guard);
	CHECK_EQ(memory_guard_create(&options, &guard, NULL), 0);
	dying = dying ?: mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(dying != MAP_FAILED);
	*dying = NOWHERE;
}

static void a_thread_that_reads_what_is_gone_ends_the_process_with_a_line(void)
{
	static const enum how hows[] = {HERE, ON_ANOTHER_THREAD};

	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		set_up_blind();
		CHECK_EQ(die(hows[i]), STATUS);
		CHECK(strstr(logged(), ": the guest's memory cannot be read any more; the machine ends\n"));
		CHECK_EQ(*dying, ON_THE_LOOPS_THREAD);
	}
	set_up_blind();
	CHECK_EQ(die(OUTSIDE_OF_GUEST_MEMORY), -SIGBUS);
	CHECK_STR(logged(), "");
	CHECK_EQ(*dying, NOWHERE);
	tear_down();
}

static void it_does_not_wait_for_ever_for_the_loops_thread(void)
{
	set_up_blind();
	CHECK_EQ(die(BEHIND_A_DEAF_LOOP), STATUS);
	CHECK(strstr(logged(), "; the machine ends\n"));
	CHECK_EQ(*dying, ELSEWHERE);
	tear_down();
}

static void what_was_told_is_not_told_again_by_a_signal(void)
{
	set_up_blind();
	memory_guard_lose(guard, "the handler at %s died", "SOCKET");
	CHECK_STR(logged(), "mvmm: the handler at SOCKET died; the machine ends\n");
	CHECK_EQ(die(HERE), STATUS);
	CHECK_STR(logged(), "");
	CHECK_EQ(*dying, ON_THE_LOOPS_THREAD);
	tear_down();
}

TEST_MAIN(TEST(a_change_of_any_kind_is_told_once), TEST(a_write_through_a_mapping_is_seen),
	  TEST(without_a_watch_it_is_looked_at), TEST(other_names_and_readers_are_no_change),
	  TEST(a_fault_of_a_vcpu_is_told), TEST(a_thread_that_reads_what_is_gone_ends_the_process_with_a_line),
	  TEST(it_does_not_wait_for_ever_for_the_loops_thread), TEST(what_was_told_is_not_told_again_by_a_signal))
