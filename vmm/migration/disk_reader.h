/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the contents of disks while the guest writes to them: first everything, then what has changed since. Holes and
 * zeros are told as ranges. All disks are read by one cursor, so that an earlier copy of a block cannot pass a later one.
 *
 * Used by disk_sender.c, which sends them, and by snapshot/disk_copier.c, which writes them into files.
 * A block is read after collect has listed it; a later write to it is reported later.
 */
#pragma once

#include "core/err.h"
#include "vmm/migration/limiter.h"
#include "vmm/migration/wire.h"

#define DISK_GRANULE KIB(64) /* one bit of collect */

/* A disk whose contents are copied. */
struct disk_copy {
	char id[64];
	int fd;        /* only read with offsets; owned by the disk, outlives the reader */
	uint64_t size; /* bytes; whole sectors */
	bool uncached; /* reads should not stay in the page cache */
	/* ORs the granules that changed since the last call into bitmap; NULL: nothing writes to it. Never fails. */
	void (*collect)(void *opaque, unsigned long *bitmap);
	void *opaque;
};

/* Where the contents go; offsets and sizes in bytes. An error ends the reading. */
struct disk_reader_sink {
	/* Up to WIRE_MAX_BLOCKS bytes. */
	int (*blocks)(void *opaque, size_t disk, uint64_t offset, const uint8_t *data, uint64_t size, struct err *err);
	/* Adjacent ranges are merged. */
	int (*hole)(void *opaque, size_t disk, uint64_t offset, uint64_t size, struct err *err);
};

struct disk_reader_options {
	const struct disk_copy *disks;
	size_t count;                  /* 1 to WIRE_MAX_DISKS */
	const struct limiter *limiter; /* pieces are as small as it wants them; NULL: no limit */
	const struct disk_reader_sink *sink;
	void *opaque;
};

struct disk_reader;

/* Lists everything. */
int disk_reader_create(const struct disk_reader_options *options, struct disk_reader **ret, struct err *err);
/* NULL is fine. */
void disk_reader_destroy(struct disk_reader *reader);

/* Lists what has changed since the last call. */
void disk_reader_collect(struct disk_reader *reader);
/* Listed bytes, including holes. */
uint64_t disk_reader_left(const struct disk_reader *reader);

/*
 * Reads listed blocks until none is left or until about deadline (ns of CLOCK_MONOTONIC; 0: none). An error names the
 * disk that cannot be read.
 */
int disk_reader_read(struct disk_reader *reader, uint64_t deadline, struct err *err);
