/* SPDX-License-Identifier: Apache-2.0 */
/* A process that can start only so many threads. For one source of a program. */
#pragma once

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

/* Threads that can still be started; -1: any number. */
static int threads_to_come = -1;

/* In the place of the C library's. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *opaque), void *opaque)
{
	__typeof__(pthread_create) *real = (__typeof__(pthread_create) *)dlsym(RTLD_NEXT, "pthread_create");

	if (!threads_to_come)
		return EAGAIN;
	threads_to_come -= threads_to_come > 0;
	return real(thread, attr, fn, opaque);
}
