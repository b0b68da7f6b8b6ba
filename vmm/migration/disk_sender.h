/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends what disk_reader.h reads of disks while the guest writes to them, in the same rounds as memory. All disks share
 * one channel, so that an earlier copy of a block cannot arrive after a later one.
 *
 * Called by the migration's thread.
 */
#pragma once

#include "vmm/migration/channel.h"
#include "vmm/migration/disk_reader.h"

struct disk_sender;

struct disk_sender_options {
	const struct disk_copy *disks; /* in the order of the OFFER; outlive the sender */
	size_t count;                  /* 1 to WIRE_MAX_DISKS */
	struct limiter *limiter;       /* shared with other senders; NULL: no limit */
	int cancel_fd;                 /* readable: calls end with -ECANCELED. Not owned; -1: none */
	/* Called about ten times a second while a flush is awaited; nonzero ends the wait. May be NULL. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/* Lists everything; takes *channel, which has exchanged HELLO, on success. */
int disk_sender_create(const struct disk_sender_options *options, struct channel **channel, struct disk_sender **ret,
		       struct err *err);
/* Closes the channel. Here and below NULL means that there are no disks: nothing remains and nothing is done. */
void disk_sender_destroy(struct disk_sender *sender);

/* Lists what has changed since the last call. */
void disk_sender_collect(struct disk_sender *sender);
/* Listed bytes, including holes. */
uint64_t disk_sender_left(const struct disk_sender *sender);
/* Bytes on the wire so far. */
uint64_t disk_sender_sent(const struct disk_sender *sender);

/*
 * Sends listed blocks until none is left or until about deadline (ns of CLOCK_MONOTONIC; 0: none). An error names the
 * disk that cannot be read.
 */
int disk_sender_send(struct disk_sender *sender, uint64_t deadline, struct err *err);

/* Waits until the target has everything on stable storage, and measures the time, as an estimate for the last flush. */
int disk_sender_flush(struct disk_sender *sender, struct err *err);
/* Time of the last flush, ns. */
uint64_t disk_sender_flush_time(const struct disk_sender *sender);

/* Sends END: the target flushes once more, and nothing can be sent afterwards. */
int disk_sender_end(struct disk_sender *sender, struct err *err);
