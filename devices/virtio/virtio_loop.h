/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves the queues of a device that needs little throughput (rng, console, balloon, vsock) on a shared event loop. The
 * device handles one chain; this file watches the kick_fds, limits the time of one turn, and does not access the queues
 * while the device is inactive or drained.
 *
 * Whatever a guest puts into its queues, other users of the loop wait for one turn of each queue at most. A chain that
 * may take longer is handled in parts: the device looks at virtio_loop_turn_over after each.
 *
 * Stopping takes a lock and waits at most for the end of a turn. It never waits for the loop, so the loop may wait for
 * vCPUs (to pause the machine) while one of them resets the device.
 */
#pragma once

#include "devices/virtio/virtio.h"

#define VIRTIO_LOOP_QUEUES 5u

/*
 * True: chain is handled and pushed, or its head is kept to push later. False: not possible now; the chain goes back
 * into the queue. It is served again in the next turn if this one is over; else the device calls virtio_loop_serve
 * later. Under the lock, mostly on the loop's thread.
 */
typedef bool virtio_serve_fn(struct virtio_device *device, struct virtqueue *vq, const struct virtq_chain *chain);

struct virtio_loop_queue {
	struct virtio_loop *owner;
	struct virtqueue *vq;
	struct event_source *source;
};

/* The first part of such a device. */
struct virtio_loop {
	struct virtio_device device;
	struct event_loop *loop; /* NULL while nothing is watched */
	virtio_serve_fn *serve;
	pthread_mutex_t lock; /* nests inside device->lock, which serve must not take */
	bool running;
	uint64_t turn_end; /* monotonic_ns() */
	struct virtio_loop_queue queues[VIRTIO_LOOP_QUEUES];
	struct virtq_chain chain;
};

static inline struct virtio_loop *virtio_loop_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_loop, device);
}

/* After virtio_device_init, with at most VIRTIO_LOOP_QUEUES queues: begins to watch them. */
int virtio_loop_watch(struct virtio_loop *l, struct event_loop *loop, virtio_serve_fn *serve, struct err *err);
/* Undoes virtio_loop_watch and virtio_device_init. No effect on a zeroed device. */
void virtio_loop_done(struct virtio_loop *l);

/* The device's activate and resume: both check each queue once. */
int virtio_loop_activate(struct virtio_device *device, struct err *err);
void virtio_loop_start(struct virtio_device *device);
/* The device's reset and drain: after return the queues are not accessed any more. Neither fails. */
void virtio_loop_stop(struct virtio_device *device);
int virtio_loop_drain(struct virtio_device *device, int64_t deadline, struct err *err);

/* For the device's own code: true, with the lock held, if the queues may be used; else false. */
bool virtio_loop_enter(struct virtio_loop *l);
void virtio_loop_leave(struct virtio_loop *l);
/* Serves a queue for one turn, between enter and leave. */
void virtio_loop_serve(struct virtio_loop *l, unsigned int queue);
/* For serve: the time is up. */
bool virtio_loop_turn_over(const struct virtio_loop *l);
