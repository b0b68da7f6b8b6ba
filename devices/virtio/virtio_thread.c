/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_thread.h. */
#include "devices/virtio/virtio_thread.h"

#include <stdio.h>

#include "core/irq.h"
#include "core/monotonic.h"

static void virtio_thread_want(struct virtio_thread *thread, enum virtio_thread_wanted wanted)
{
	if (!thread->started)
		return;
	if (thread->wanted == wanted)
		return;
	pthread_mutex_lock(&thread->lock);
	__atomic_store_n(&thread->wanted, wanted, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&thread->changed);
	pthread_mutex_unlock(&thread->lock);
	eventfd_kick(thread->wake_fd);
}

void virtio_thread_prepare(struct virtio_thread *thread, enum thread_kind kind, int wake_fd, void *(*fn)(void *opaque),
			   void *opaque, const char *name)
{
	*thread = (struct virtio_thread){
		.prepared = true, .kind = kind, .fn = fn, .opaque = opaque, .wake_fd = wake_fd, .wanted = VIRTIO_THREAD_PARK,
	};
	snprintf(thread->name, sizeof(thread->name), "%s", name);
}

static int virtio_thread_start(struct virtio_thread *thread)
{
	int ret;

	pthread_mutex_init(&thread->lock, NULL);
	pthread_cond_init(&thread->changed, NULL);
	ret = thread_start(&thread->id, thread->kind, thread->fn, thread->opaque, "%s", thread->name);
	thread->started = ret == 0;
	return ret;
}

void virtio_thread_pause(struct virtio_thread *thread)
{
	virtio_thread_want(thread, VIRTIO_THREAD_PARK);
}

int virtio_thread_wait(struct virtio_thread *thread, int64_t deadline)
{
	const struct timespec until = monotonic_deadline(deadline);
	int ret = 0;

	if (!thread->started)
		return 0;
	pthread_mutex_lock(&thread->lock);
	while (!thread->parked && ret == 0)
		ret = pthread_cond_clockwait(&thread->changed, &thread->lock, CLOCK_MONOTONIC, &until);
	ret = thread->parked ? 0 : -ret;
	pthread_mutex_unlock(&thread->lock);
	return ret;
}

int virtio_thread_resume(struct virtio_thread *thread)
{
	int ret = thread->prepared && !thread->started ? virtio_thread_start(thread) : 0;

	virtio_thread_want(thread, VIRTIO_THREAD_GO);
	return ret;
}

void virtio_thread_stop(struct virtio_thread *thread)
{
	thread->prepared = false;
	if (!thread->started)
		return;
	virtio_thread_want(thread, VIRTIO_THREAD_END);
	pthread_join(thread->id, NULL);
	pthread_cond_destroy(&thread->changed);
	pthread_mutex_destroy(&thread->lock);
	thread->started = false;
}

bool virtio_thread_park(struct virtio_thread *thread)
{
	bool go;

	pthread_mutex_lock(&thread->lock);
	thread->parked = true;
	pthread_cond_broadcast(&thread->changed);
	while (thread->wanted == VIRTIO_THREAD_PARK)
		pthread_cond_wait(&thread->changed, &thread->lock);
	thread->parked = false;
	go = thread->wanted == VIRTIO_THREAD_GO;
	pthread_mutex_unlock(&thread->lock);
	return go;
}
