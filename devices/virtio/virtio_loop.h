/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves the queues of a device that is in no hurry (rng, console, balloon) on an event loop that it shares with
 * others. The device says what to do with one chain; this file watches the kick_fds, bounds what is done in one turn,
 * and keeps the loop's thread away from the queues while the device is not active or drained.
 *
 * Stopping takes a lock and waits for the end of the turn at most. It never waits for the loop, so the loop may in turn
 * wait for vCPUs (to pause the machine) while one of them resets the device.
 */
#pragma once

#include "devices/virtio/virtio.h"

#define VIRTIO_LOOP_QUEUES 5u

/*
 * Uses up chain and pushes it, or keeps its head to push later: true. False: not now; the chain goes back into the
 * queue and virtio_loop_serve is called when it is worth another try. Under the lock, mostly on the loop's thread.
 */
typedef bool virtio_serve_fn(struct virtio_device *device, struct virtqueue *vq, const struct virtq_chain *chain);

struct virtio_loop_queue {
	struct virtio_loop *owner;
	struct virtqueue *vq;
	struct event_source *source;
};

/* A device, embedded in what more it has. */
struct virtio_loop {
	struct virtio_device device;
	struct event_loop *loop; /* NULL while nothing is watched */
	virtio_serve_fn *serve;
	pthread_mutex_t lock; /* inside device->lock; serve must not take that one */
	bool running;
	struct virtio_loop_queue queues[VIRTIO_LOOP_QUEUES];
	struct virtq_chain chain;
};

static inline struct virtio_loop *virtio_loop_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_loop, device);
}

/* After virtio_device_init, with VIRTIO_LOOP_QUEUES queues at most: begins to watch them. */
int virtio_loop_watch(struct virtio_loop *l, struct event_loop *loop, virtio_serve_fn *serve, struct err *err);
/* Undoes that, and virtio_device_init too. Harmless on a zeroed one. */
void virtio_loop_done(struct virtio_loop *l);

/* The device's activate, and what it needs as resume: every queue is looked at once. */
int virtio_loop_activate(struct virtio_device *device, struct err *err);
void virtio_loop_start(struct virtio_device *device);
/* The device's reset and drain: on return nothing touches the queues any more. Neither fails. */
void virtio_loop_stop(struct virtio_device *device);
int virtio_loop_drain(struct virtio_device *device, int64_t deadline, struct err *err);

/* For the device's own callbacks and calls: true with the lock held while the queues may be used, else false. */
bool virtio_loop_enter(struct virtio_loop *l);
void virtio_loop_leave(struct virtio_loop *l);
/* Takes up a queue again, between enter and leave. */
void virtio_loop_serve(struct virtio_loop *l, unsigned int queue);
