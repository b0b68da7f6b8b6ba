/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way out of one memory channel: gathered into batches, each sent by one io_uring operation after the other
 * from where the pages lie. Where the kernel can send without a copy and does, it is let; where it says that it copied anyway
 * (the loopback, a Unix socket) it is not asked again.
 *
 * Belongs to one thread, from create to destroy. Only memory_sender.c uses it.
 */
#pragma once

#include <liburing.h>

#include "vmm/migration/channel.h"

#define BATCH_BYTES MIB(2) /* of payload */
#define BATCH_FRAMES 256u
#define BATCH_PACKED MIB(1)
#define BATCHES 4u

struct batch {
	struct iovec iov[2 * BATCH_FRAMES];
	struct msghdr message;
	unsigned int iov_count, frames;
	size_t bytes;         /* all of it */
	uint8_t *packed;      /* BATCH_PACKED bytes for what is compressed, or NULL */
	size_t packed_used;
	bool sending;
	unsigned int notifications; /* that the kernel still owes: until then it reads the bytes */
	uint8_t headers[BATCH_FRAMES][WIRE_HEADER_SIZE];
};

struct send_queue {
	struct channel *channel;
	struct io_uring ring;
	bool has_ring, zero_copy;
	bool zero_copied; /* at least once, without the kernel copying */
	unsigned int current;
	struct batch batches[BATCHES];
};

/* pack: batches have room for what is compressed. */
int send_queue_create(struct channel *channel, bool pack, struct send_queue **ret, struct err *err);
/* Waits for what is under way; channel_break makes that short. NULL is fine. */
void send_queue_destroy(struct send_queue *queue);

/* The batch that frames are added to. */
struct batch *send_queue_batch(struct send_queue *queue);

/* Adds a frame with payload (not copied), length bytes as the frame says. The batch has room: below BATCH_FRAMES. */
void batch_add(struct batch *batch, const struct wire_frame *frame, const void *payload);

/* Sends the batch after those before it and begins a new one; waits where there is no free one. */
int send_queue_flush(struct send_queue *queue, struct err *err);

/* The same on any thread, while nothing is under way and without the ring, which is for the one that made the queue. */
int send_queue_flush_here(struct send_queue *queue, struct err *err);

/* Waits until the kernel has taken all that was flushed. */
int send_queue_drain(struct send_queue *queue, struct err *err);
