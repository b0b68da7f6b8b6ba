/* SPDX-License-Identifier: Apache-2.0 */
/* The files into which a snapshot is written, opened by its asker. Filled in by control/, written by snapshot_take.c. */
#pragma once

#include "vmm/migration/wire.h"

/* The files to write, empty and open for reading and writing; -1: not wanted. */
struct snapshot_files {
	int state, memory;
	int description; /* machine.json */
	int kernel, initrd;
	struct snapshot_disk_file {
		char id[64];
		int fd;
	} disks[WIRE_MAX_DISKS];
	size_t disk_count;
};

void snapshot_files_init(struct snapshot_files *files);
void snapshot_files_close(struct snapshot_files *files);

/*
 * Whether all of them are what is promised above: plain files, none of them twice. Nothing is written to another's data,
 * and nothing ends up elsewhere than meant. -EINVAL.
 */
int snapshot_files_check(const struct snapshot_files *files, struct err *err);
