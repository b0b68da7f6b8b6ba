/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends guest pages that are marked in bitmaps over all memory channels, directly from guest memory. Each channel has a
 * thread and an io_uring. A run of pages is one frame. Pages of zeros are sent as ranges, and memory that was never
 * touched is not read. This file decides about zero copy, compression and the bandwidth limit.
 *
 * Called by the migration's thread, one call at a time. The guest may run and write meanwhile: a page that changes
 * while it is sent must be marked again afterwards, as dirty sources do that were collected before.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

struct memory_sender;

struct memory_sender_options {
	const struct guest_memory *memory;  /* its regions do not change while the sender exists */
	struct channel *const *channels;    /* memory channels 0 to channel_count - 1; outlive the sender */
	unsigned int channel_count;
	struct limiter *limiter; /* shared with other senders; NULL: no limit */
	bool compress;           /* with zstd, if that makes the data smaller */
	int cancel_fd;           /* readable: calls end with -ECANCELED. Not owned; -1: none */
	/* Called about ten times a second during a call, on the caller's thread; nonzero ends the call. May be NULL. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/* Pages to send: bit n is the page at gpa + n * 4096. Within one region. */
struct memory_marks {
	uint64_t gpa, size; /* bytes, page multiples */
	unsigned long *bitmap; /* a page's bit is cleared right before the page is read */
};

/* Since the sender was created. */
struct memory_sender_stats {
	uint64_t pages;      /* sent with their contents */
	uint64_t zero_pages; /* sent as zero */
	uint64_t zero_ns;    /* part of busy_ns spent on chunks that were all zero, in calls with a deadline */
	uint64_t bytes;      /* sent, including headers */
	uint64_t busy_ns;    /* spent in memory_sender_send */
	bool zero_copy;      /* at least one channel sends without a copy */
};

/* -ENOSYS with a message if there is no io_uring. */
int memory_sender_create(const struct memory_sender_options *options, struct memory_sender **ret, struct err *err);
/* Closes the channels that have work in progress. NULL is fine. */
void memory_sender_destroy(struct memory_sender *sender);

/*
 * Sends marked pages until there are none, or until about deadline_ns (CLOCK_MONOTONIC; 0: none). The next call
 * continues where this one ended. On return all frames have been passed to the kernel. The first failure of a channel
 * ends all; this call and every later one return it, and its message begins with the channel.
 */
int memory_sender_send(struct memory_sender *sender, const struct memory_marks *marks, size_t count, uint64_t deadline_ns,
		       struct err *err);

/* Sends one page on each channel as memory_sender_end does, to measure the time. An unnecessary page does no harm. */
int memory_sender_rehearse(struct memory_sender *sender, struct err *err);

/*
 * Sends the last marked pages and END on every channel; nothing can be sent afterwards. The calling thread sends, so
 * that no other thread has to wake up during the pause; call it for about MEMORY_SENDER_LITTLE bytes at most.
 */
#define MEMORY_SENDER_LITTLE KIB(256)
int memory_sender_end(struct memory_sender *sender, const struct memory_marks *marks, size_t count, struct err *err);

/* So far, including a call in progress. Any thread. */
void memory_sender_get_stats(struct memory_sender *sender, struct memory_sender_stats *stats);
