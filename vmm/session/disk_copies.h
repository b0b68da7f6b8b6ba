/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks whose content goes along with a machine that moves: which of a machine's those are, on the source, and the files that they
 * become, on the target. migration/disk_sender.c and disk_receiver.c move what is on them.
 *
 * A file that is not there is made, and goes again unless the machine runs here in the end. One that is there is overwritten
 * only where the target's user has named it by --disk, and has its size.
 */
#pragma once

#include "vmm/machine/machine.h"
#include "vmm/migration/disk_receiver.h"
#include "vmm/migration/disk_sender.h"
#include "vmm/migration/request.h"
#include "vmm/session/session.h"

/* ---- the source ---- */

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

/* ---- the target ---- */

struct disk_arrivals;

/*
 * Opens the files of the disks that come along, made where they are not there, and looks whether there is room for what is on
 * them; config has what was put in place for this host, named is what --disk said. Before the machine is made, which takes their
 * locks. Which failed is named, and nothing is left behind.
 */
int disk_arrivals_create(const struct machine_offer *offer, const struct machine_config *config,
			 const struct receive_override *named, size_t named_count, struct disk_arrivals **ret, struct err *err);
/* In the order of the offer; *ret is the arrivals'. */
size_t disk_arrivals_get(const struct disk_arrivals *arrivals, const struct disk_target **ret);
/* The machine runs here: files that were made stay. */
void disk_arrivals_keep(struct disk_arrivals *arrivals);
/* Closes them; those that were made go again unless they were to stay. NULL is fine. */
void disk_arrivals_destroy(struct disk_arrivals *arrivals);
