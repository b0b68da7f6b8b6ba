/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last work on the disks of a snapshot, within the pause: what is left of their copies, their identities, and their
 * reflinks. A call to storage that hangs cannot be interrupted, so that a thread makes it which can be left behind: it
 * has descriptors of its own, and ends with its next call. Used by snapshot_disks.c.
 */
#pragma once

#include "vmm/snapshot/disk_copier.h"
#include "vmm/snapshot/state_file.h"

struct disk_keeper;

struct disk_keeper_options {
	const struct disk_copy *disks;
	const int *files; /* for reflinks; NULL: there are none */
	size_t count;
};

/*
 * Begins. *copier: all that is left for it was collected; NULL: nothing is copied. It is taken over, and no tick of it
 * is called any more.
 */
int disk_keeper_create(const struct disk_keeper_options *options, struct disk_copier **copier, struct disk_keeper **ret,
		       struct err *err);
/* Does not wait for storage. NULL is fine. */
void disk_keeper_destroy(struct disk_keeper *keeper);

/*
 * Waits for the end, which fills identities, one for each disk. -ETIMEDOUT: storage has done nothing for ms; -ECANCELED:
 * cancel_fd was readable before; or the failure, which names the disk.
 */
int disk_keeper_wait(struct disk_keeper *keeper, int cancel_fd, int ms, struct snapshot_disk identities[WIRE_MAX_DISKS],
		     struct err *err);
