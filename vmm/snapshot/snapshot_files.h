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
