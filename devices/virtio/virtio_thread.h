/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's thread that works on queues (blk, net). It is started by its first resume, so that a guest that is restored
 * need not wait for it. Then it runs, parks for each pause, and ends. While parked it keeps its memory and descriptors,
 * so that a further resume cannot fail.
 *
 * The device calls it under device->lock. Calls on a thread that was not prepared (a zeroed struct) have no effect.
 */
#pragma once

#include "core/thread.h"

enum virtio_thread_wanted { VIRTIO_THREAD_GO, VIRTIO_THREAD_PARK, VIRTIO_THREAD_END };

struct virtio_thread {
	bool prepared, started;
	enum thread_kind kind;
	void *(*fn)(void *opaque);
	void *opaque;
	char name[16];
	pthread_t id;
	int wake_fd;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum virtio_thread_wanted wanted; /* changed under the lock, also read without it */
	bool parked;
};

/* ---- for the device ---- */

/* It will run fn(opaque), which parks first; wake_fd is an eventfd that wakes it wherever it sleeps while it runs. */
void virtio_thread_prepare(struct virtio_thread *thread, enum thread_kind kind, int wake_fd, void *(*fn)(void *opaque),
			   void *opaque, const char *name);
/* pause asks it to park; wait returns when it has, or -ETIMEDOUT at deadline (of
 * monotonic_ms(); below 0: none). */
void virtio_thread_pause(struct virtio_thread *thread);
int virtio_thread_wait(struct virtio_thread *thread, int64_t deadline);
/* Undoes pause. Only the first one can fail, which starts the thread: -errno, and nothing has changed. */
int virtio_thread_resume(struct virtio_thread *thread);
/* Ends the thread, if it was started, and joins it. */
void virtio_thread_stop(struct virtio_thread *thread);

/* ---- for the thread itself, between two rounds of its work ---- */

/* True: the thread must start no request, complete those it has, and park. */
static inline bool virtio_thread_asked(const struct virtio_thread *thread)
{
	return __atomic_load_n(&thread->wanted, __ATOMIC_ACQUIRE) != VIRTIO_THREAD_GO;
}

/* Parks until it must run (true) or end (false). */
bool virtio_thread_park(struct virtio_thread *thread);
