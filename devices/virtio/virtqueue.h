/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A split virtqueue as the device sees it (virtio 1.2 section 2.7): indirect descriptors, event index, any layout.
 *
 * The ring lies in guest memory, so every index, address and length is hostile. virtqueue_pop copies each descriptor
 * once, checks it on the copy and yields host pointers; nonsense makes the queue broken: nothing is popped any more,
 * the device is told once (needs reset), the process goes on. A queue is used by one thread at a time.
 */
#pragma once

#include "core/guest_memory.h"

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#define VIRTQUEUE_MAX_SIZE 1024u
#define VIRTQUEUE_MAX_SEGMENTS 1026u /* of one chain, indirect ones included */

struct virtio_device;
struct virtqueue;

/* What the device that has the queue is asked for; by its thread that uses the queue. */
struct virtqueue_ops {
	/* Interrupts the driver for the queue. */
	void (*notify)(struct virtqueue *vq);
	/* The queue has become broken: needs reset. */
	void (*broken)(struct virtqueue *vq, const char *why);
};

/* What the driver programmed; the transport writes these while the queue is disabled. */
struct virtqueue_setup {
	uint16_t size; /* entries, a power of two up to max_size */
	bool enabled;
	uint64_t desc, avail, used; /* guest addresses of the three parts */
};

struct virtqueue {
	struct virtqueue_setup setup;
	uint16_t max_size;

	/* The running queue: host addresses, valid from virtqueue_start to virtqueue_stop. */
	struct guest_memory *memory;
	const struct vring_desc *desc_host;
	const struct vring_avail *avail_host;
	struct vring_used *used_host;
	uint16_t next_avail;     /* next entry of the available ring to look at */
	uint16_t seen_avail;     /* the driver's index when it was read last */
	uint16_t next_used;      /* next entry of the used ring to write */
	uint16_t signalled_used; /* next_used when the driver was last asked whether it wants to hear */
	bool event_idx;
	bool indirect;
	bool broken;

	uint16_t index;
	const struct virtqueue_ops *ops;
	struct virtio_device *device; /* for ops */
	int kick_fd; /* the driver's notifications: a non-blocking eventfd, made by virtio_device_init */
};

/* A popped chain: first out_count device-readable segments, then in_count device-writable ones. */
struct virtq_chain {
	uint16_t head;
	uint16_t out_count, in_count;
	uint32_t out_bytes, in_bytes;
	struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
};

/*
 * Checks the ring addresses against memory and begins at index 0. -EFAULT (err set) when they are not all RAM, -EINVAL
 * when one is misaligned or the size is none.
 */
int virtqueue_start(struct virtqueue *vq, struct guest_memory *memory, uint64_t features, struct err *err);
/*
 * Where a queue stands that nobody works on, and what then lies in its ring: two words by which a load tells that it has
 * before it the memory that belongs to it.
 */
struct virtqueue_place {
	uint16_t next_avail, next_used, signalled_used;
	uint16_t avail_idx, used_idx;
	bool broken;
};
void virtqueue_place(const struct virtqueue *vq, struct virtqueue_place *place);
/* As virtqueue_start, but goes on at place. -EBADMSG when the ring is not as it was left. */
int virtqueue_start_at(struct virtqueue *vq, struct guest_memory *memory, uint64_t features,
		       const struct virtqueue_place *place, struct err *err);
void virtqueue_stop(struct virtqueue *vq);

/* The next chain: 1 and *chain filled in, 0 when there is none, -EPROTO when the queue is (now) broken. */
int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain);
/* Undoes the last pop; repeated, those before it, as long as nothing popped later was given back. */
void virtqueue_unpop(struct virtqueue *vq);
/* True when there is a chain to pop. Never true again once the queue is broken. */
bool virtqueue_ready(struct virtqueue *vq);

/* Gives a chain back with written bytes in its writable segments, which are marked dirty here. Several may be pushed
 * before one virtqueue_notify. */
void virtqueue_push(struct virtqueue *vq, const struct virtq_chain *chain, uint32_t written);
/* The same for whoever kept only the head and in_count writable segments that may have been written: those are marked
 * dirty from first to last byte, whatever written says. */
void virtqueue_push_iov(struct virtqueue *vq, uint16_t head, const struct iovec *in, unsigned int in_count,
			uint32_t written);
/* For whoever keeps only the head: the caller has marked the bytes dirty itself (virtqueue_dirty). */
void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written);
/* Marks the first bytes of count segments dirty. */
void virtqueue_dirty(struct virtqueue *vq, const struct iovec *iov, unsigned int count, uint64_t bytes);
/*
 * For a packet in several chains, which the driver must see all at once (merged receive buffers): fill writes the used
 * entry that lies ahead (0, 1, ...) entries beyond the published ones and marks the first written bytes of in dirty;
 * publish shows count entries.
 */
void virtqueue_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head, const struct iovec *in, unsigned int in_count,
		    uint32_t written);
void virtqueue_publish(struct virtqueue *vq, uint16_t count);
/* Interrupts the driver if it wants to hear of what was pushed since the last call. */
void virtqueue_notify(struct virtqueue *vq);

/*
 * Asks the driver for kicks, or to save them. enable returns true when chains arrived in between: then go on popping.
 */
bool virtqueue_enable_kicks(struct virtqueue *vq);
void virtqueue_disable_kicks(struct virtqueue *vq);

/* Copies len bytes at offset bytes into the readable (writable) part of a chain: the bytes copied, fewer at its end. */
size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *buf, size_t len);
size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *buf, size_t len);
