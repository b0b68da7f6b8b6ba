/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of the disks whose content comes along with a machine (machine/disk_copies.h has the source's side).
 * migration/disk_receiver.c writes them.
 *
 * A file that is not there is made, and goes again unless the machine runs here in the end. One that is there is
 * overwritten only where the target's user has named it by --disk, and has its size.
 */
#pragma once

#include "vmm/machine/machine_offer.h"
#include "vmm/migration/disk_receiver.h"
#include "vmm/session/session.h"

struct disk_arrivals;

/*
 * Opens the files of the disks that come along, made where they are not there, and looks whether there is room for what
 * is on them; config has what was put in place for this host, named is what --disk said. Before the machine is made,
 * which takes their locks. Which failed is named, and nothing is left behind.
 */
int disk_arrivals_create(const struct machine_offer *offer, const struct machine_config *config,
			 const struct receive_override *named, size_t named_count, struct disk_arrivals **ret,
			 struct err *err);
/* In the order of the offer; *ret is the arrivals'. */
size_t disk_arrivals_get(const struct disk_arrivals *arrivals, const struct disk_target **ret);
/* The machine runs here: files that were made stay. */
void disk_arrivals_keep(struct disk_arrivals *arrivals);
/* Closes them; those that were made go again unless they were to stay. NULL is fine. */
void disk_arrivals_destroy(struct disk_arrivals *arrivals);
