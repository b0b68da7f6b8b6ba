/* SPDX-License-Identifier: Apache-2.0 */
/* What the threads of this process have in common, whoever starts them. */
#pragma once

#include <pthread.h>
#include <signal.h>

#include "core/util.h"

/*
 * What a thread blocks that leaves signals to the main one: all but those that its own faults raise, so that a crash
 * on it still gives the terminal back.
 */
void thread_signals(sigset_t *set);

/* Starts fn(opaque) on a thread that leaves signals to the main one. Its name is cut after 15 characters. -errno. */
int thread_start(pthread_t *thread, void *(*fn)(void *opaque), void *opaque, const char *name, ...) _printf_(4, 5);
