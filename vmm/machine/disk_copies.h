/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a machine that is migrated: those whose content goes with it, which migration/disk_sender.c reads, and
 * those that the target uses too, which migration/disk_flusher.c flushes.
 */
#pragma once

#include "vmm/machine/machine.h"
#include "vmm/migration/disk_flusher.h"
#include "vmm/migration/disk_sender.h"
#include "vmm/migration/request.h"

struct virtio_device;

/* Whether the device is a disk whose content is migrated. */
bool disk_copies_wanted(struct virtio_device *device, enum migration_copy which);
/* The bytes of the disk that are not holes; its size if that is unknown. */
uint64_t disk_copies_allocated(struct virtio_device *disk);
/* Fills ret with the machine's disks to copy, in the order of its offer; returns their number. */
size_t disk_copies_of(const struct machine *machine, enum migration_copy which, struct disk_copy ret[WIRE_MAX_DISKS]);
/*
 * Fills ret with the writable disks that are not copied and whose writes may still be in the page cache; returns their
 * number.
 */
size_t disk_copies_shared(const struct machine *machine, enum migration_copy which,
			  struct disk_shared ret[WIRE_MAX_DISKS]);
/* Starts and stops the tracking of what the guest writes to these disks. On the loop's thread. */
int disk_copies_track(const struct machine *machine, enum migration_copy which, struct err *err);
void disk_copies_untrack(const struct machine *machine, enum migration_copy which);
