/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks whose content goes along with a machine that moves: which of its disks those are. migration/disk_sender.c
 * reads them.
 */
#pragma once

#include "vmm/machine/machine.h"
#include "vmm/migration/disk_sender.h"
#include "vmm/migration/request.h"

struct virtio_device;

/* Whether it is a disk that goes along. */
bool disk_copies_wanted(struct virtio_device *device, enum migration_copy which);
/* Bytes of it that are no holes; all where that cannot be told. */
uint64_t disk_copies_allocated(struct virtio_device *disk);
/* Those of the machine, in the order of its offer; how many. */
size_t disk_copies_of(const struct machine *machine, enum migration_copy which, struct disk_copy ret[WIRE_MAX_DISKS]);
/* From now on they tell what their guest changes; until untrack. On the loop's thread. */
int disk_copies_track(const struct machine *machine, enum migration_copy which, struct err *err);
void disk_copies_untrack(const struct machine *machine, enum migration_copy which);
