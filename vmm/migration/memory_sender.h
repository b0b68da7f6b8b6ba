/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends guest pages: all that are marked in bitmaps, over all memory channels at once, from where they lie in guest memory.
 * One thread and one io_uring a channel; runs of pages go as one frame; pages of zeros are named, not sent, and memory that was
 * never touched is not looked at. What is zero-copy, compressed or held back by the bandwidth cap is decided here.
 *
 * Called by the migration's thread, one call at a time. The guest may run and write meanwhile: a page that changes while it is
 * sent must be marked again afterwards, which is what dirty sources do when they were asked before.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

struct memory_sender;

struct memory_sender_options {
	const struct guest_memory *memory;  /* keeps its regions as long as the sender lives */
	struct channel *const *channels;    /* memory channels 0 to channel_count - 1; outlive the sender */
	unsigned int channel_count;
	struct limiter *limiter; /* shared with whoever else sends; NULL: no cap */
	bool compress;           /* by zstd, what gets smaller by it */
	int cancel_fd;           /* readable: what is under way ends with -ECANCELED. Not owned; -1: none */
	/* Called about ten times a second while pages are being sent, on the caller's thread; nonzero ends it. May be NULL. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/* Pages that are to be sent: bit n stands for the page at gpa + n * 4096. Lies within one region. */
struct memory_marks {
	uint64_t gpa, size; /* bytes, page multiples */
	unsigned long *bitmap; /* the bits of pages that were sent are cleared, right before they are read */
};

/* Since the sender was made. */
struct memory_sender_stats {
	uint64_t pages;      /* sent with their content */
	uint64_t zero_pages; /* sent as being zero */
	uint64_t zero_ns;    /* of busy_ns, where nothing but zeros was found, as far as calls had a deadline */
	uint64_t bytes;      /* on the wire, headers included */
	uint64_t busy_ns;    /* spent in memory_sender_send */
	bool zero_copy;      /* at least one channel sends without a copy */
};

/* -ENOSYS with a sentence when there is no io_uring, -ENOPKG when compression is wanted and there is no zstd. */
int memory_sender_create(const struct memory_sender_options *options, struct memory_sender **ret, struct err *err);
/* Ends the connections where something is under way. NULL is fine. */
void memory_sender_destroy(struct memory_sender *sender);

/*
 * Sends marked pages until there are none, or, where deadline_ns is not 0 (CLOCK_MONOTONIC), not much longer than until then;
 * where the next call begins is where this one ended. All that was taken has been handed to the kernel on return. The first failure
 * of any channel ends them all: it is returned, with the channel in front of the sentence, and by every later call.
 */
int memory_sender_send(struct memory_sender *sender, const struct memory_marks *marks, size_t count, uint64_t deadline_ns,
		       struct err *err);

/*
 * Sends one page on each channel, whatever is in it, as memory_sender_end will: to know how long that takes. A page that is sent
 * without need does no harm.
 */
int memory_sender_rehearse(struct memory_sender *sender, struct err *err);

/*
 * Sends the last that is marked, if anything, and says END on every channel; nothing can be sent after it. The calling thread does
 * it, so that no other has to wake up while the guest stands: it is for little, MEMORY_SENDER_LITTLE bytes or so.
 */
#define MEMORY_SENDER_LITTLE KIB(256)
int memory_sender_end(struct memory_sender *sender, const struct memory_marks *marks, size_t count, struct err *err);

/* So far, a call under way included. Any thread. */
void memory_sender_get_stats(struct memory_sender *sender, struct memory_sender_stats *stats);
