/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writable disks of a machine that is restored. A disk goes on where the snapshot left it: the file itself, if
 * nothing has written it since, or a new file with the copy that is kept in the snapshot. Everything else is refused
 * unless the user says that the disk may have changed. Nothing is written into the snapshot. Used by session_restore.c.
 */
#pragma once

#include "vmm/machine/machine.h"
#include "vmm/session/session.h"
#include "vmm/snapshot/snapshot_open.h"

struct restore_disks;

struct restore_disks_options {
	const struct snapshot *snapshot;
	const struct machine_config *config;    /* with what the options name; its disks outlive this */
	const struct restore_options *options;
	const struct arrival_options *here;     /* names the disks; used in restore_disks_create only */
	const struct log *log;
	/* Called about ten times a second while a disk is copied; nonzero ends it. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/* Whether the machine has the disks that --disk-changed and --disk-from name. restore_disks_create checks it, too. */
int restore_disks_check_options(const struct machine_config *config, const struct restore_options *options,
				struct err *err);

/*
 * Before the machine is made: checks the disks, and makes the files that do not exist. An error names the disk and the
 * ways out, and nothing is left behind.
 */
int restore_disks_create(const struct restore_disks_options *options, struct restore_disks **ret, struct err *err);

/*
 * The machine has opened its disks: locks them. They are still those that were checked, which nobody writes any more.
 * disks NULL here and below: they are not those of the snapshot, and are only locked.
 */
int restore_disks_lock(const struct restore_disks *disks, struct machine *machine, struct err *err);

/* The guest runs: files that were made stay. */
void restore_disks_keep(struct restore_disks *disks);
/* Removes files that were made, unless restore_disks_keep was called. NULL is fine. */
void restore_disks_destroy(struct restore_disks *disks);
