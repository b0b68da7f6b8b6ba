/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost device of the host's kernel (<linux/vhost.h>): the kernel serves virtqueues in guest memory, woken by their
 * kick eventfds, and interrupts the driver through eventfds. One for each queue pair of virtio-net, or for
 * virtio-vsock.
 *
 * It listens to guest memory from open to close. Calls on one vhost come from one thread at a time.
 *
 * It is a dirty source through the kernel's log (VHOST_F_LOG_ALL): used rings, and the buffers of a device that marks
 * them, as vhost-net does and vhost-vsock does not. Tracking begins and ends while rings run, on any thread.
 */
#pragma once

#include "core/dirty.h"
#include "devices/virtio/virtqueue.h"

#include <linux/vhost.h>

struct vhost;

#define VHOST_RINGS 2u /* of each vhost */

struct vhost_options {
	const char *path;
	const char *module;  /* the kernel module that makes path */
	const char *instead; /* what the user can do without it: "leave vhost=on out" */
	struct guest_memory *memory;
	struct dirty_set *dirty; /* vhost is its source from open to close; NULL: none */
};
/* The strings are not copied. -ENOENT, -EACCES: err says what to do. */
int vhost_open(const struct vhost_options *options, struct vhost **ret, struct err *err);
/* Before it, all rings are stopped. NULL is fine. */
void vhost_close(struct vhost *vhost);

/* The kernel's features: VIRTIO_F_* and the device's own. */
uint64_t vhost_features(const struct vhost *vhost);
/* Before the first ring starts; ignores bits that the kernel does not have. */
int vhost_set_features(struct vhost *vhost, uint64_t features, struct err *err);

/* Starts ring number ring at the position of vq; call_fd interrupts the driver. */
int vhost_ring_start(struct vhost *vhost, unsigned int ring, const struct virtqueue *vq, int call_fd, struct err *err);
/* call_fd interrupts the driver from now on; no effect on a ring that is stopped. */
void vhost_ring_call(struct vhost *vhost, unsigned int ring, int call_fd);
/* Stops the ring; vq then has the kernel's position. */
void vhost_ring_stop(struct vhost *vhost, unsigned int ring, struct virtqueue *vq);

/* A device-specific ioctl: 0 or -errno. */
int vhost_ioctl(struct vhost *vhost, unsigned long request, const void *arg);

/* An eventfd that the kernel kicks when it gives up a ring because its contents are invalid. */
int vhost_error_fd(const struct vhost *vhost);
