/* SPDX-License-Identifier: Apache-2.0 */
/* core/thread: kinds and filters, signals and names of threads. */
#include "core/thread.h"

#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/unit/few_threads.h"
#include "tests/unit/test.h"

/* What has happened on a thread, in this order. */
struct trace {
	char words[256];
	size_t len;
};

static void note(struct trace *trace, const char *word, int number)
{
	trace->len += (size_t)snprintf(trace->words + trace->len, sizeof(trace->words) - trace->len, "%s%d ", word, number);
}

static void enter(void *opaque, enum thread_kind kind)
{
	note(opaque, "kind", (int)kind);
}

static void *work(void *opaque)
{
	note(opaque, "work", 0);
	return opaque;
}

/* A check that fails here would not be on the harness's thread. */
static void *work_and_start_another(void *opaque)
{
	struct trace *trace = opaque;
	pthread_t inner;

	note(trace, "outer", 0);
	if (thread_start(&inner, THREAD_SNAPSHOT, work, trace, "inner") == 0)
		pthread_join(inner, NULL);
	return trace;
}

static void run(void *(*fn)(void *opaque), enum thread_kind kind, void *opaque)
{
	pthread_t thread;
	void *result;

	CHECK_EQ(thread_start(&thread, kind, fn, opaque, "test"), 0);
	CHECK_EQ(pthread_join(thread, &result), 0);
	CHECK(result == opaque);
}

static void a_filter_of_the_kind_is_the_first_act_of_a_thread(void)
{
	struct trace trace = {.len = 0};
	const struct thread_filters filters = {.enter = enter, .opaque = &trace};
	char want[64];

	thread_set_filters(&filters);
	run(work, THREAD_VCPU, &trace);
	thread_set_filters(NULL);
	snprintf(want, sizeof(want), "kind%d work0 ", THREAD_VCPU);
	CHECK_STR(trace.words, want);
}

static void a_thread_that_a_thread_starts_has_its_filters(void)
{
	struct trace trace = {.len = 0};
	const struct thread_filters filters = {.enter = enter, .opaque = &trace};
	char want[64];

	thread_set_filters(&filters);
	run(work_and_start_another, THREAD_MIGRATION, &trace);
	thread_set_filters(NULL);
	snprintf(want, sizeof(want), "kind%d outer0 kind%d work0 ", THREAD_MIGRATION, THREAD_SNAPSHOT);
	CHECK_STR(trace.words, want);
}

static void without_filters_a_thread_just_runs(void)
{
	struct trace trace = {.len = 0};

	run(work_and_start_another, THREAD_DISK, &trace);
	CHECK_STR(trace.words, "outer0 work0 ");
}

static void a_thread_that_cannot_be_started_is_an_error(void)
{
	struct trace trace = {.len = 0};
	pthread_t thread;

	threads_to_come = 0;
	CHECK_EQ(thread_start(&thread, THREAD_DISK, work, &trace, "test"), -EAGAIN);
	threads_to_come = -1;
	CHECK_EQ((int)trace.len, 0);
}

struct appearance {
	char name[16];
	sigset_t blocked;
};

static void *look(void *opaque)
{
	struct appearance *own = opaque;

	prctl(PR_GET_NAME, own->name);
	pthread_sigmask(SIG_BLOCK, NULL, &own->blocked);
	return NULL;
}

static void a_thread_has_its_name_and_signals_and_leaves_those_of_its_starter(void)
{
	struct appearance before, seen, after;
	pthread_t thread;

	look(&before);
	CHECK_EQ(thread_start_kicked(&thread, THREAD_VCPU, SIGUSR1, look, &seen, "a name that is %s", "cut"), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	look(&after);
	CHECK_STR(seen.name, "a name that is ");
	CHECK_EQ(sigismember(&seen.blocked, SIGTERM), 1);
	CHECK_EQ(sigismember(&seen.blocked, SIGUSR1), 0);
	CHECK_EQ(sigismember(&seen.blocked, SIGBUS), 0);
	CHECK_STR(after.name, before.name);
	CHECK_EQ(sigismember(&after.blocked, SIGTERM), 0);
}

TEST_MAIN(TEST(a_filter_of_the_kind_is_the_first_act_of_a_thread),
	  TEST(a_thread_that_a_thread_starts_has_its_filters),
	  TEST(without_filters_a_thread_just_runs),
	  TEST(a_thread_that_cannot_be_started_is_an_error),
	  TEST(a_thread_has_its_name_and_signals_and_leaves_those_of_its_starter))
