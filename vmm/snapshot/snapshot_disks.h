/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writable disks of a machine whose snapshot is taken: kept beside the snapshot as reflinks, and identified,
 * so that a restore can tell whether a disk has changed since. Used by snapshot_take.c.
 */
#pragma once

#include "vmm/snapshot/snapshot_config.h"
#include "vmm/snapshot/state_file.h"

/*
 * Whether the snapshot can keep the disks as it was asked to: each has a file, and that is a reflink if asked for.
 * -ENOTSUP: the message has the ways out. Before the guest is paused.
 */
int snapshot_disks_check(const struct snapshot_take_config *config, struct err *err);

/* The guest is paused and the disks have been flushed: keeps them, and fills disks; returns their number in *count. */
int snapshot_disks_keep(const struct snapshot_take_config *config, struct snapshot_disk disks[WIRE_MAX_DISKS],
			size_t *count, struct err *err);

/* What tells a disk that has changed from one that has not. */
int snapshot_disks_identify(const char *id, int fd, struct snapshot_disk *ret, struct err *err);

/* Makes to, an empty file, share all blocks of from. -errno without a message. */
int snapshot_disks_reflink(int from, int to);
