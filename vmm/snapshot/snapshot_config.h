/* SPDX-License-Identifier: Apache-2.0 */
/* What it takes to make a snapshot: the files, and the machine behind the table of a migration. See snapshot_take.h. */
#pragma once

#include "vmm/migration/source_config.h"
#include "vmm/snapshot/snapshot_files.h"
#include "vmm/snapshot/snapshot_report.h"
#include "vmm/snapshot/track.h"

struct snapshot_take_config {
	const struct snapshot_request *request;
	const struct snapshot_files *files;
	const struct migration_machine_ops *ops;
	void *machine;
	struct track *track;           /* begun; its owner commits or aborts it afterwards */
	const struct disk_copy *disks; /* all writable disks */
	size_t disk_count;
	int (*flush)(int fd);          /* of disks; NULL: fdatasync(2) */
	int kernel, initrd;            /* what the machine boots from; -1: nothing */
	bool paused;                   /* by the user */
	/* Progress; on the thread. */
	void (*tell)(void *opaque, const struct snapshot_report *report);
	void *opaque;
	const struct log *log;
};
