/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receives the contents of disks and writes them into their files, on a thread of its own. The channel's data is
 * hostile: disk number, offset and length are checked before a byte is written, and only these files are written.
 */
#pragma once

#include "vmm/migration/channel.h"
#include "vmm/migration/disk_target.h"

struct disk_receiver;

/* Starts to receive count disks (1 to WIRE_MAX_DISKS, copied) in the order of the OFFER; takes *channel on success. */
int disk_receiver_create(const struct disk_target *disks, size_t count, struct channel **channel, struct disk_receiver **ret,
			 struct err *err);
/* Closes the channel if it has not received END. NULL is fine. */
void disk_receiver_destroy(struct disk_receiver *receiver);

/* Readable when something has failed; disk_receiver_wait then returns the error. Owned by the receiver. */
int disk_receiver_fd(const struct disk_receiver *receiver);

/* Waits for END with correct totals and until all data is on stable storage, or returns the failure. */
int disk_receiver_wait(struct disk_receiver *receiver, struct err *err);
/*
 * Whether the threads are done; waits for them until then (ms of monotonic_ms; below 0: for ever). disk_receiver_wait
 * has the result. A readable cancel_fd (-1: none) ends it with -ECANCELED.
 */
bool disk_receiver_done(struct disk_receiver *receiver, int cancel_fd, int64_t until);
