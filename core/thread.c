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

/*
 * A thread inherits signals and name from the one that starts it. To name it afterwards, glibc writes to a file in /proc,
 * which takes as long as the start itself.
 */
static int thread_start_as(pthread_t *thread, void *(*fn)(void *opaque), void *opaque, const sigset_t *blocked,
			   const char *name)
{
	char ours[16];
	sigset_t old;
	int code;

	prctl(PR_GET_NAME, ours);
	prctl(PR_SET_NAME, name);
	pthread_sigmask(SIG_SETMASK, blocked, &old);
	code = -pthread_create(thread, NULL, fn, opaque);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	prctl(PR_SET_NAME, ours);
	return code;
}

int thread_start_kicked(pthread_t *thread, int signal, void *(*fn)(void *opaque), void *opaque, const char *name, ...)
{
	sigset_t blocked;
	char text[16];
	va_list args;

	va_start(args, name);
	vsnprintf(text, sizeof(text), name, args);
	va_end(args);
	thread_signals(&blocked);
	if (signal)
		sigdelset(&blocked, signal);
	return thread_start_as(thread, fn, opaque, &blocked, text);
}
