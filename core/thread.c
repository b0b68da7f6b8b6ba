/* SPDX-License-Identifier: Apache-2.0 */
/* See thread.h. */
#include "core/thread.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>

void thread_signals(sigset_t *set)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT};

	sigfillset(set);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigdelset(set, faults[i]);
}

static __thread const struct thread_filters *thread_filters;
static __thread struct helpers *thread_own_helpers;
static __thread bool thread_confined;

void thread_set_filters(const struct thread_filters *filters)
{
	thread_filters = filters;
}

void thread_set_helpers(struct helpers *helpers)
{
	thread_own_helpers = helpers;
}

struct helpers *thread_helpers(void)
{
	return thread_own_helpers;
}

void thread_enter(enum thread_kind kind)
{
	if (!thread_filters)
		return;
	thread_filters->enter(thread_filters->opaque, kind);
	thread_confined = kind != THREAD_STARTER;
}

bool thread_is_confined(void)
{
	return thread_confined;
}

static int thread_call_as(int (*fn)(void *argument), void *argument, bool swift)
{
	const struct thread_filters *filters = thread_filters;

	return thread_confined && filters->call ? filters->call(filters->opaque, fn, argument, swift) : fn(argument);
}

int thread_call(int (*fn)(void *argument), void *argument)
{
	return thread_call_as(fn, argument, false);
}

bool thread_settle(void)
{
	return !thread_filters || !thread_filters->settle || thread_filters->settle(thread_filters->opaque);
}

/* What a new thread is told; it frees it. */
struct thread_begin {
	const struct thread_filters *filters; /* of the thread that starts it, which may be the starter */
	struct helpers *helpers;
	enum thread_kind kind;
	void *(*fn)(void *opaque);
	void *opaque;
};

static void *thread_main(void *opaque)
{
	const struct thread_begin begin = *(struct thread_begin *)opaque;

	free(opaque);
	thread_set_filters(begin.filters);
	thread_set_helpers(begin.helpers);
	thread_enter(begin.kind);
	return begin.fn(begin.opaque);
}

struct thread_creation {
	pthread_t *thread;
	struct thread_begin *begin;
	const sigset_t *blocked;
	const char *name;
};

/*
 * A thread inherits signals and name from the one that starts it. To name it afterwards, glibc writes to a file in /proc,
 * which takes as long as the start itself.
 */
static int thread_create(void *argument)
{
	const struct thread_creation *creation = argument;
	char ours[16];
	sigset_t old;
	int code;

	creation->begin->filters = thread_filters;
	prctl(PR_GET_NAME, ours);
	prctl(PR_SET_NAME, creation->name);
	pthread_sigmask(SIG_SETMASK, creation->blocked, &old);
	code = -pthread_create(creation->thread, NULL, thread_main, creation->begin);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	prctl(PR_SET_NAME, ours);
	return code;
}

int thread_start_kicked(pthread_t *thread, enum thread_kind kind, int signal, void *(*fn)(void *opaque), void *opaque,
			const char *name, ...)
{
	struct thread_begin *begin = malloc(sizeof(*begin));
	sigset_t blocked;
	char text[16];
	va_list args;
	int code;

	if (!begin)
		return -ENOMEM;
	*begin = (struct thread_begin){
		.helpers = thread_own_helpers, .kind = kind, .fn = fn, .opaque = opaque,
	};
	va_start(args, name);
	vsnprintf(text, sizeof(text), name, args);
	va_end(args);
	thread_signals(&blocked);
	if (signal)
		sigdelset(&blocked, signal);
	code = thread_call_as(thread_create, &(struct thread_creation){thread, begin, &blocked, text}, true);
	if (code)
		free(begin);
	return code;
}
