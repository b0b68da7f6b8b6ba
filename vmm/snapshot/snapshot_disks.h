/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writable disks of a machine whose snapshot is taken: flushed, kept beside the snapshot as reflinks or copies, and
 * identified, so that a restore can tell whether a disk has changed since. What takes time happens while the guest runs;
 * in the pause little is left, and storage that hangs ends it. Used by snapshot_take.c, on its thread.
 */
#pragma once

#include "vmm/snapshot/snapshot_config.h"
#include "vmm/snapshot/state_file.h"

struct snapshot_disk_set;

struct snapshot_disks_options {
	const struct snapshot_take_config *config; /* outlives it */
	int cancel_fd;                             /* readable: calls end */
	/* Called about ten times a second while disks are copied, and when cancel_fd is readable: nonzero ends it. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/*
 * Checks that the disks can be kept as they were asked to: each has a file, and that can be a reflink if asked for.
 * -ENOTSUP: the message has the ways out. From now on it is known what the guest writes to disks that are copied.
 */
int snapshot_disks_create(const struct snapshot_disks_options *options, struct snapshot_disk_set **ret, struct err *err);
/* NULL is fine. Storage that hangs does not hold it up. */
void snapshot_disks_destroy(struct snapshot_disk_set *disks);

/* The guest runs: copies and flushes until little is left. */
int snapshot_disks_prepare(struct snapshot_disk_set *disks, struct err *err);
/* Copies what the guest has written since; nothing if they are not copied. */
int snapshot_disks_follow(struct snapshot_disk_set *disks, struct err *err);

/* What flushes them; NULL: there are none. Owned by disks. */
struct disk_flusher *snapshot_disks_flusher(const struct snapshot_disk_set *disks);
/* Flushes, until the deadline (ms of monotonic_ms; below 0: none). */
int snapshot_disks_flush(struct snapshot_disk_set *disks, int64_t deadline, struct err *err);
/*
 * The guest is paused, and the disks have been flushed: copies the rest, keeps the disks, and fills identities; returns
 * their number in *count. -ETIMEDOUT: storage has done nothing for ms. Once.
 */
int snapshot_disks_keep(struct snapshot_disk_set *disks, int ms, struct snapshot_disk identities[WIRE_MAX_DISKS],
			size_t *count, struct err *err);

/* Bytes that are still to be copied. NULL: none. */
uint64_t snapshot_disks_left(const struct snapshot_disk_set *disks);
