/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The output of one memory channel. Frames are gathered into batches; io_uring sends the batches one after the other,
 * directly from the pages. Zero copy is used if the kernel supports it. If the kernel reports that it copied anyway
 * (loopback, Unix socket), zero copy is switched off.
 *
 * Used by one thread from create to destroy. Only memory_sender.c uses it.
 */
#pragma once


#include "core/ring.h"
#include "vmm/migration/channel.h"

#define BATCH_BYTES MIB(2) /* of payload */
#define BATCH_FRAMES 256u
#define BATCH_PACKED MIB(1)
#define BATCHES 4u

struct batch {
	struct iovec iov[2 * BATCH_FRAMES];
	struct msghdr message;
	unsigned int iov_count, frames;
	size_t bytes;         /* of the whole batch */
	uint8_t *packed;      /* BATCH_PACKED bytes for compressed data, or NULL */
	size_t packed_used;
	bool sending;
	unsigned int notifications; /* outstanding in the kernel, which reads the bytes until then */
	uint8_t headers[BATCH_FRAMES][WIRE_HEADER_SIZE];
};

struct send_queue {
	struct channel *channel;
	struct io_uring ring;
	bool has_ring, fixed_file, zero_copy;
	bool zero_copied; /* the kernel sent without a copy at least once */
	unsigned int current;
	struct batch batches[BATCHES];
};

/* pack: batches have room for compressed data. */
int send_queue_create(struct channel *channel, bool pack, struct send_queue **ret, struct err *err);
/* Waits for operations in flight; channel_break makes this short. NULL is fine. */
void send_queue_destroy(struct send_queue *queue);

/* The batch to which frames are added. */
struct batch *send_queue_batch(struct send_queue *queue);

/* Adds a frame and its payload (not copied), of the frame's length. The batch must have room: below BATCH_FRAMES. */
void batch_add(struct batch *batch, const struct wire_frame *frame, const void *payload);

/* Sends the batch after the earlier ones and begins a new one; waits if none is free. */
int send_queue_flush(struct send_queue *queue, struct err *err);

/* The same on any thread, while nothing is in flight. Does not use the ring, which belongs to the creating thread. */
int send_queue_flush_here(struct send_queue *queue, struct err *err);

/* Waits until the kernel has taken all flushed batches. */
int send_queue_drain(struct send_queue *queue, struct err *err);
