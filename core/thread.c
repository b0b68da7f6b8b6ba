/* SPDX-License-Identifier: Apache-2.0 */
/* See thread.h. */
#include "core/thread.h"

#include <stdarg.h>
#include <stdio.h>

void thread_signals(sigset_t *set)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT};

	sigfillset(set);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigdelset(set, faults[i]);
}

int thread_start(pthread_t *thread, void *(*fn)(void *opaque), void *opaque, const char *name, ...)
{
	sigset_t blocked, old;
	char text[16];
	va_list args;
	int code;

	thread_signals(&blocked);
	pthread_sigmask(SIG_SETMASK, &blocked, &old);
	code = -pthread_create(thread, NULL, fn, opaque);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (code)
		return code;
	va_start(args, name);
	vsnprintf(text, sizeof(text), name, args);
	va_end(args);
	pthread_setname_np(*thread, text);
	return 0;
}
