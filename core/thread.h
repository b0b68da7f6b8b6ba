/* SPDX-License-Identifier: Apache-2.0 */
/* Signals and names of all threads of this process. */
#pragma once

#include <pthread.h>
#include <signal.h>

#include "core/util.h"

/*
 * The signals that all threads but the main one block: all but those that a thread's own faults raise, so that a crash
 * on it still restores the terminal.
 */
void thread_signals(sigset_t *set);

/* Starts fn(opaque) on a thread that blocks thread_signals(). Its name is cut after 15 characters. -errno. */
#define thread_start(thread, fn, opaque, ...) thread_start_kicked(thread, 0, fn, opaque, __VA_ARGS__)

/* The same, and from its first instruction on the thread takes this signal; 0: none. */
int thread_start_kicked(pthread_t *thread, int signal, void *(*fn)(void *opaque), void *opaque, const char *name, ...)
	_printf_(5, 6);
