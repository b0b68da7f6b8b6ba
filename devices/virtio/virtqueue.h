/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's side of a split virtqueue (virtio 1.2 section 2.7): indirect descriptors, event index, any layout.
 *
 * The ring is in guest memory, so every index, address and length is hostile. virtqueue_pop copies each descriptor
 * once, checks the copy and returns host pointers. An invalid ring makes the queue broken: nothing is popped any more,
 * ops-> broken is called once, the process continues. One thread at a time uses a queue.
 */
#pragma once

#include "core/counter.h"
#include "core/guest_memory.h"

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#define VIRTQUEUE_MAX_SIZE 1024u
#define VIRTQUEUE_MAX_SEGMENTS 1026u /* of one chain, indirect ones included */

struct virtio_device;
struct virtqueue;

/* Called on the thread that uses the queue. */
struct virtqueue_ops {
	/* Interrupts the driver for the queue. */
	void (*notify)(struct virtqueue *vq);
	/* The queue has become broken: the device needs a reset. */
	void (*broken)(struct virtqueue *vq, const char *why);
};

/* Set by the driver through the transport, while the queue is disabled. */
struct virtqueue_setup {
	uint16_t size; /* entries, a power of two up to max_size */
	bool enabled;
	uint64_t desc, avail, used; /* guest addresses of the three parts */
};

/* What has happened on a queue, other than by vhost, since its device was made. Its thread adds to it (core/counter.h). */
struct virtqueue_counts {
	uint64_t chains;     /* that were completed */
	uint64_t kicks;      /* by the driver, as far as they woke the device */
	uint64_t interrupts; /* of the driver */
};

struct virtqueue {
	struct virtqueue_setup setup;
	uint16_t max_size;

	/* The running queue: host addresses, valid from virtqueue_start to virtqueue_stop. */
	struct guest_memory *memory;
	const struct vring_desc *desc_host;
	const struct vring_avail *avail_host;
	struct vring_used *used_host;
	uint16_t next_avail;     /* next entry of the available ring to read */
	uint16_t seen_avail;     /* the driver's index when last read */
	uint16_t next_used;      /* next entry of the used ring to write */
	uint16_t signalled_used; /* next_used when virtqueue_notify last checked whether to interrupt */
	bool event_idx;
	bool indirect;
	bool broken;

	uint16_t index;
	const struct virtqueue_ops *ops;
	struct virtio_device *device; /* for ops */
	const char *id;               /* the device's; or NULL */
	int kick_fd; /* the driver's notifications: a non-blocking eventfd, made by virtio_device_init */
	struct virtqueue_counts counts;
};

/* A popped chain: first out_count device-readable segments, then in_count device-writable ones. */
struct virtq_chain {
	uint16_t head;
	uint16_t out_count, in_count;
	uint32_t out_bytes, in_bytes;
	struct iovec iov[VIRTQUEUE_MAX_SEGMENTS];
};

/*
 * Checks the ring's addresses and begins at index 0. -EFAULT: the ring is not all in RAM; -EINVAL: an address is
 * misaligned or the size is invalid.
 */
int virtqueue_start(struct virtqueue *vq, struct guest_memory *memory, uint64_t features, struct err *err);
/*
 * The position of a queue that is not in use, and the two indexes in its ring: with them a load checks that guest
 * memory is the memory of this state.
 */
struct virtqueue_place {
	uint16_t next_avail, next_used, signalled_used;
	uint16_t avail_idx, used_idx;
	bool broken;
};
void virtqueue_place(const struct virtqueue *vq, struct virtqueue_place *place);
/* As virtqueue_start, but continues at place. -EBADMSG: the ring's indexes are not those of place. */
int virtqueue_start_at(struct virtqueue *vq, struct guest_memory *memory, uint64_t features,
		       const struct virtqueue_place *place, struct err *err);
void virtqueue_stop(struct virtqueue *vq);

/* The next chain: 1 and *chain is filled in; 0: there is none; -EPROTO: the queue is (now) broken. */
int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain);
/* Undoes the last pop; repeated, the pops before it, as long as no chain popped later was pushed. */
void virtqueue_unpop(struct virtqueue *vq);
/* True: there is a chain to pop. Always false once the queue is broken. */
bool virtqueue_ready(struct virtqueue *vq);

/* Puts a chain into the used ring, with written bytes in its writable segments, and marks these dirty. Several chains
 * may be pushed before one virtqueue_notify. */
void virtqueue_push(struct virtqueue *vq, const struct virtq_chain *chain, uint32_t written);
/* The same for a caller that has only the head and in_count writable segments; marks all of the segments dirty. */
void virtqueue_push_iov(struct virtqueue *vq, uint16_t head, const struct iovec *in, unsigned int in_count,
			uint32_t written);
/* The same for a caller that has only the head and has marked the bytes dirty (virtqueue_dirty). */
void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written);
/* Marks the first bytes of count segments dirty. */
void virtqueue_dirty(struct virtqueue *vq, const struct iovec *iov, unsigned int count, uint64_t bytes);
/*
 * For a packet in several chains, which the driver must see all at once (merged receive buffers): fill writes the used
 * entry number ahead (0, 1, ...) after the published ones and marks the first written bytes of in dirty; publish makes
 * count entries visible.
 */
void virtqueue_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head, const struct iovec *in, unsigned int in_count,
		    uint32_t written);
void virtqueue_publish(struct virtqueue *vq, uint16_t count);
/* Interrupts the driver, unless it does not want an interrupt for the chains pushed since the last call. */
void virtqueue_notify(struct virtqueue *vq);

/* A kick has woken the device. */
static inline void virtqueue_kicked(struct virtqueue *vq)
{
	counter_add(&vq->counts.kicks, 1);
}

/* Asks the driver for kicks, or for none. enable returns true if chains have arrived meanwhile: then pop them first. */
bool virtqueue_enable_kicks(struct virtqueue *vq);
void virtqueue_disable_kicks(struct virtqueue *vq);

/* Copies len bytes from (to) the readable (writable) part of a chain at offset; returns how many: fewer at its end. */
size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *buf, size_t len);
size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *buf, size_t len);
