/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receives what is on disks, on a thread of its own, straight into their files. What the channel says is hostile: which disk,
 * where and how much are checked before a byte is written, and nothing but these files is.
 */
#pragma once

#include "vmm/migration/channel.h"

/* A disk that is being made here. */
struct disk_target {
	char id[64];
	int fd;        /* may be written; the owner's, as long as the receiver lives */
	uint64_t size; /* bytes */
};

struct disk_receiver;

/* Begins to receive, for count disks (1 to WIRE_MAX_DISKS, copied) in the order of the OFFER; takes *channel when it succeeds. */
int disk_receiver_create(const struct disk_target *disks, size_t count, struct channel **channel, struct disk_receiver **ret,
			 struct err *err);
/* Ends the connection if it is not at its END. NULL is fine. */
void disk_receiver_destroy(struct disk_receiver *receiver);

/* Readable as soon as something has failed; disk_receiver_wait then tells what. Owned by the receiver. */
int disk_receiver_fd(const struct disk_receiver *receiver);

/* Waits until the channel has said END, its totals are right and all of it is on stable storage, or for what failed. */
int disk_receiver_wait(struct disk_receiver *receiver, struct err *err);
