/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/jail/door: who waits for it. In child processes, since a filter stays; with --seccomp log, since the sanitizers'
 * own calls are in no table.
 */
#include "vmm/jail/door.h"

#include <linux/seccomp.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "core/thread.h"
#include "tests/unit/test.h"

#define WHILE_NS 50000000 /* for a thread that would not wait to be through */

static const struct log quiet = {.fd = STDERR_FILENO, .level = LOG_WARN, .prefix = "# "};
static struct door *door;
static int about_to_look; /* eventfd */
static atomic_int closing, seen = -1;

/* What a vCPU's thread does after the guest has left for the first time. */
static void *look(void *opaque)
{
	bool *may = opaque;

	eventfd_write(about_to_look, 1);
	*may = thread_settle();
	seen = closing;
	return NULL;
}

static int start_to_look(pthread_t *thread, bool *may)
{
	eventfd_t count;

	about_to_look = eventfd(0, EFD_CLOEXEC);
	return door_create(&(struct door_options){.seccomp = SECCOMP_LOG, .log = &quiet}, &door, NULL) ?:
	       thread_start(thread, THREAD_VCPU, look, may, "vcpu0") ?: eventfd_read(about_to_look, &count);
}

static bool is_confined(void)
{
	return prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER;
}

static int tell_thread(void *argument)
{
	*(long *)argument = syscall(SYS_gettid);
	return is_confined();
}

/* ---- in a child: 0, or the number of the line that failed ---- */

#define MUST(cond)                       \
	do {                             \
		if (!(cond))             \
			return __LINE__; \
	} while (0)

static int closes(void)
{
	long starter = 0;
	bool may = false;
	pthread_t thread;

	MUST(!start_to_look(&thread, &may));
	nanosleep(&(struct timespec){.tv_nsec = WHILE_NS}, NULL);
	MUST(seen == -1 && !is_confined());
	closing = 1;
	MUST(!door_close(door, NULL) && is_confined() && thread_is_confined());
	MUST(!pthread_join(thread, NULL) && may && seen == 1);
	MUST(thread_call(tell_thread, &starter) == true && starter && starter != syscall(SYS_gettid));
	MUST(!door_close(door, NULL) && !door_serve(door, NULL));
	door_destroy(door);
	return 0;
}

static int ends(void)
{
	bool may = true;
	pthread_t thread;

	MUST(!start_to_look(&thread, &may));
	closing = 2;
	door_end(door);
	MUST(!pthread_join(thread, NULL) && !may && !is_confined());
	door_destroy(door);
	return 0;
}

static int serves(void)
{
	MUST(!door_create(&(struct door_options){.seccomp = SECCOMP_LOG, .log = &quiet}, &door, NULL));
	MUST(!door_serve(door, NULL) && !door_serve(door, NULL) && !is_confined());
	door_destroy(door); /* there is a thread, which ends */
	return 0;
}

static void holds(int (*fn)(void))
{
	uint32_t action = SECCOMP_RET_LOG;
	int status;
	pid_t pid;

	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0)
		SKIP("this kernel has no filters of system calls");
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		status = fn();
		if (status)
			printf("# line %d\n", status);
		fflush(stdout);
		_exit(status ? 1 : 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void a_guest_that_runs_already_is_looked_at_when_all_are_confined(void)
{
	holds(closes);
}

static void what_waits_for_a_door_that_is_never_closed_is_told(void)
{
	holds(ends);
}

static void a_door_serves_before_it_is_closed(void)
{
	holds(serves);
}

TEST_MAIN(TEST(a_guest_that_runs_already_is_looked_at_when_all_are_confined),
	  TEST(what_waits_for_a_door_that_is_never_closed_is_told), TEST(a_door_serves_before_it_is_closed))
