/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost device of the host kernel (<linux/vhost.h>): it works on virtqueues in this process's guest memory by itself,
 * woken by the queues' kick eventfds, and interrupts the driver by eventfd. virtio-net has one for each queue pair,
 * virtio-vsock one.
 *
 * It listens to guest memory from open to close. Calls on one vhost come from one thread at a time.
 *
 * What it writes into guest memory it tells as a dirty source, by the kernel's log (VHOST_F_LOG_ALL): used rings and the
 * buffers of a device that marks them, as vhost-net does and vhost-vsock does not. Tracking begins and ends while rings
 * run, on any thread.
 */
#pragma once

#include "core/dirty.h"
#include "devices/virtio/virtqueue.h"

#include <linux/vhost.h>

struct vhost;

#define VHOST_RINGS 2u /* of each vhost */

struct vhost_options {
	const char *path;
	const char *module;  /* of the kernel, which makes path */
	const char *instead; /* what people can do without it: "leave vhost=on out" */
	struct guest_memory *memory;
	struct dirty_set *dirty; /* joined from open to close; NULL: none, or what is written there is told by others */
};
/* The strings are kept. -ENOENT, -EACCES with a sentence. */
int vhost_open(const struct vhost_options *options, struct vhost **ret, struct err *err);
/* All rings are stopped. NULL is fine. */
void vhost_close(struct vhost *vhost);

/* What the kernel can do, VIRTIO_F_* and the device's own. */
uint64_t vhost_features(const struct vhost *vhost);
/* Before the first ring starts; bits that the kernel does not have are left out. */
int vhost_set_features(struct vhost *vhost, uint64_t features, struct err *err);

/* Hands ring number ring over to the kernel where vq stands; call_fd interrupts the driver. */
int vhost_ring_start(struct vhost *vhost, unsigned int ring, const struct virtqueue *vq, int call_fd, struct err *err);
/* Takes it back after the kernel has stopped working on it: vq stands where the kernel got to. */
void vhost_ring_stop(struct vhost *vhost, unsigned int ring, struct virtqueue *vq);

/* An ioctl of the device's own: 0 or -errno. */
int vhost_ioctl(struct vhost *vhost, unsigned long request, const void *arg);

/* An eventfd the kernel kicks when it gives a ring up because of what the guest has put there. */
int vhost_error_fd(const struct vhost *vhost);
