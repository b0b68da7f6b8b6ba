/* SPDX-License-Identifier: Apache-2.0 */
/* See virtio_loop.h. */
#include "devices/virtio/virtio_loop.h"

#include "core/irq.h"
#include "core/monotonic.h"

#include <sys/epoll.h>

#define TURN_NS 1000000u

bool virtio_loop_turn_over(const struct virtio_loop *l)
{
	return monotonic_ns() >= l->turn_end;
}

/* One chain at least. */
static void virtio_loop_take_turn(struct virtio_loop *l, struct virtqueue *vq)
{
	do {
		virtqueue_disable_kicks(vq);
		while (virtqueue_pop(vq, &l->chain) == 1) {
			bool served = l->serve(&l->device, vq, &l->chain);

			if (!served)
				virtqueue_unpop(vq);
			if (!served || virtio_loop_turn_over(l))
				return;
		}
	} while (virtqueue_enable_kicks(vq));
}

void virtio_loop_serve(struct virtio_loop *l, unsigned int queue)
{
	struct virtqueue *vq = l->queues[queue].vq;

	if (!vq->setup.enabled)
		return;
	l->turn_end = monotonic_ns() + TURN_NS;
	virtio_loop_take_turn(l, vq);
	virtqueue_notify(vq);
	if (virtio_loop_turn_over(l))
		eventfd_kick(vq->kick_fd);
}

static void virtio_loop_kicked(void *opaque, uint32_t events)
{
	struct virtio_loop_queue *queue = opaque;

	eventfd_drain(queue->vq->kick_fd);
	if (!virtio_loop_enter(queue->owner))
		return;
	virtqueue_kicked(queue->vq);
	virtio_loop_serve(queue->owner, queue->vq->index);
	virtio_loop_leave(queue->owner);
}

int virtio_loop_watch(struct virtio_loop *l, struct event_loop *loop, virtio_serve_fn *serve, struct err *err)
{
	int ret = 0;

	l->loop = loop;
	l->serve = serve;
	pthread_mutex_init(&l->lock, NULL);
	for (unsigned int i = 0; ret == 0 && i < l->device.queue_count; i++) {
		struct virtio_loop_queue *queue = &l->queues[i];

		queue->owner = l;
		queue->vq = &l->device.queues[i];
		ret = event_loop_watch(loop, queue->vq->kick_fd, EPOLLIN, virtio_loop_kicked, queue, &queue->source,
				       err);
	}
	return ret;
}

static void virtio_loop_remove_sources(void *opaque)
{
	struct virtio_loop *l = opaque;

	for (unsigned int i = 0; i < VIRTIO_LOOP_QUEUES; i++)
		event_source_remove(l->queues[i].source);
}

void virtio_loop_done(struct virtio_loop *l)
{
	if (l->loop) {
		event_loop_call(l->loop, virtio_loop_remove_sources, l);
		pthread_mutex_destroy(&l->lock);
	}
	l->loop = NULL;
	virtio_device_done(&l->device);
}

int virtio_loop_activate(struct virtio_device *device, struct err *err)
{
	virtio_loop_start(device);
	return 0;
}

void virtio_loop_start(struct virtio_device *device)
{
	struct virtio_loop *l = virtio_loop_of(device);

	pthread_mutex_lock(&l->lock);
	l->running = true;
	pthread_mutex_unlock(&l->lock);
	for (unsigned int i = 0; i < device->queue_count; i++)
		eventfd_kick(l->queues[i].vq->kick_fd);
}

void virtio_loop_stop(struct virtio_device *device)
{
	struct virtio_loop *l = virtio_loop_of(device);

	pthread_mutex_lock(&l->lock);
	l->running = false;
	pthread_mutex_unlock(&l->lock);
}

int virtio_loop_drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	virtio_loop_stop(device);
	return 0;
}

bool virtio_loop_enter(struct virtio_loop *l)
{
	pthread_mutex_lock(&l->lock);
	if (l->running)
		return true;
	pthread_mutex_unlock(&l->lock);
	return false;
}

void virtio_loop_leave(struct virtio_loop *l)
{
	pthread_mutex_unlock(&l->lock);
}
