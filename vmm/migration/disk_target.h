/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file or block device that a copy of a disk is written to. Used by disk_receiver.c for what another host sends, and
 * by snapshot/disk_copier.c for copies on this host.
 */
#pragma once

#include "core/err.h"

struct disk_target {
	char id[64];
	int fd;        /* open for writing; not owned */
	uint64_t size; /* bytes */
	unsigned int cannot; /* 0 at first; disk_target_zero remembers what the file cannot do */
};

/* Within the size, which the caller has checked. An error names the disk. */
int disk_target_write(const struct disk_target *target, uint64_t offset, const uint8_t *data, size_t size,
		      struct err *err);
/* As cheaply as the file supports: a hole, a zeroing operation of its file system or device, or written zeros. */
int disk_target_zero(struct disk_target *target, uint64_t offset, uint64_t size, struct err *err);
