/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of disks that are copied to this host (machine/disk_copies.h is the source's side).
 * migration/disk_receiver.c writes them.
 *
 * A missing file is created, and removed if the machine does not run here in the end. An existing file is overwritten
 * only if --disk of mvmm receive names it and it has the disk's size.
 */
#pragma once

#include "vmm/machine/machine_offer.h"
#include "vmm/migration/disk_receiver.h"
#include "vmm/session/session.h"

struct disk_arrivals;

/*
 * Opens the files of the copied disks, creates missing ones, and checks for free space. config is the configuration
 * after the overrides of this host, named the options --disk. Call before the machine is made, which locks the files.
 * An error names the disk, and nothing is left behind.
 */
int disk_arrivals_create(const struct machine_offer *offer, const struct machine_config *config,
			 const struct arrival_override *named, size_t named_count, struct disk_arrivals **ret,
			 struct err *err);
/* In the order of the offer; *ret belongs to arrivals. */
size_t disk_arrivals_get(const struct disk_arrivals *arrivals, const struct disk_target **ret);
/* The machine runs here: created files stay. */
void disk_arrivals_keep(struct disk_arrivals *arrivals);
/* Closes the files and removes created ones, unless disk_arrivals_keep was called. NULL is fine. */
void disk_arrivals_destroy(struct disk_arrivals *arrivals);
