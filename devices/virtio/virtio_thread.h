/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread of a device that works on queues by itself (blk, net). It begins parked, goes, parks again for a pause, and ends.
 * While it is parked it keeps all that it works with, so that going on takes nothing that there might be too little of.
 *
 * The device's calls come under device->lock. On a thread that was never started (the struct is zero), or has ended, they
 * do nothing.
 */
#pragma once

#include "core/util.h"

#include <pthread.h>

enum virtio_thread_wanted { VIRTIO_THREAD_GO, VIRTIO_THREAD_PARK, VIRTIO_THREAD_END };

struct virtio_thread {
	bool started;
	pthread_t id;
	int wake_fd;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum virtio_thread_wanted wanted; /* changed under the lock, also read without it */
	bool parked;
};

/* ---- for the device ---- */

/* Starts fn(opaque) parked; wake_fd is an eventfd that wakes it wherever it sleeps while it goes. -errno. */
int virtio_thread_start(struct virtio_thread *thread, int wake_fd, void *(*fn)(void *opaque), void *opaque,
			const char *name);
/* Asks it to park; wait returns when it has, or -ETIMEDOUT (deadline is of monotonic_ms(), below 0 there is none). Then resume undoes this. */
void virtio_thread_pause(struct virtio_thread *thread);
int virtio_thread_wait(struct virtio_thread *thread, int64_t deadline);
/* Lets it go on. Does not fail. */
void virtio_thread_resume(struct virtio_thread *thread);
/* Ends it and waits for that. */
void virtio_thread_stop(struct virtio_thread *thread);

/* ---- for the thread itself, between two rounds of its work ---- */

/* It is to take nothing up, to finish what it has, and to park. */
static inline bool virtio_thread_asked(const struct virtio_thread *thread)
{
	return __atomic_load_n(&thread->wanted, __ATOMIC_ACQUIRE) != VIRTIO_THREAD_GO;
}

/* Parks until it is to go on (true) or to end (false). */
bool virtio_thread_park(struct virtio_thread *thread);
