/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends what is on disks, while their guest writes to them: at first all of it, then what was changed since, as memory is sent and
 * in the same rounds. Holes and zeros are named, not sent. All disks share one channel, and so a later copy of a block cannot
 * be overtaken by an earlier one.
 *
 * Called by the migration's thread. A block is read after collect has put it on the list: what is written to it later is
 * reported later.
 */
#pragma once

#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

#define DISK_GRANULE KIB(64) /* what a bit of collect stands for */

/* A disk whose content goes along. */
struct disk_copy {
	char id[64];
	int fd;        /* read at offsets alone; the disk's own, as long as the sender lives */
	uint64_t size; /* bytes; whole sectors */
	bool uncached; /* what is read here is not worth keeping in the page cache */
	/* ORs the granules that were changed since it was asked last into bitmap; NULL: nobody writes. Never fails. */
	void (*collect)(void *opaque, unsigned long *bitmap);
	void *opaque;
};

struct disk_sender;

struct disk_sender_options {
	const struct disk_copy *disks; /* in the order of the OFFER; outlive the sender */
	size_t count;                  /* 1 to WIRE_MAX_DISKS */
	struct limiter *limiter;       /* shared with whoever else sends; NULL: no cap */
	int cancel_fd;                 /* readable: what is under way ends with -ECANCELED. Not owned; -1: none */
};

/* Everything is on the list then; takes *channel, which has said HELLO, when it succeeds. */
int disk_sender_create(const struct disk_sender_options *options, struct channel **channel, struct disk_sender **ret,
		       struct err *err);
/* Ends the connection. NULL is fine, here and below: there are no disks then, nothing is left and nothing to be done. */
void disk_sender_destroy(struct disk_sender *sender);

/* Adds what was changed since. */
void disk_sender_collect(struct disk_sender *sender);
/* Bytes on the list, holes included. */
uint64_t disk_sender_left(const struct disk_sender *sender);
/* Bytes on the wire so far. */
uint64_t disk_sender_sent(const struct disk_sender *sender);

/*
 * Sends from the list until it is empty or, where deadline is not 0 (ns of CLOCK_MONOTONIC), not much longer than until then. A
 * disk that cannot be read is named.
 */
int disk_sender_send(struct disk_sender *sender, uint64_t deadline, struct err *err);

/* Waits until what was sent is on the target's stable storage, and takes the time: so long may the last flush take. */
int disk_sender_flush(struct disk_sender *sender, struct err *err);
/* ns, of the last one. */
uint64_t disk_sender_flush_time(const struct disk_sender *sender);

/* Says END: the target flushes once more, and nothing can be sent after it. */
int disk_sender_end(struct disk_sender *sender, struct err *err);
