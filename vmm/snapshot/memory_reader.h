/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the memory file of a snapshot, 2 MiB at a time, and checks what it reads against the sums in the state. For
 * verify and merge; holes are not read.
 */
#pragma once

#include "vmm/snapshot/snapshot_open.h"
#include "vmm/snapshot/snapshot_progress.h"

/* All zero but for snapshot, which outlives it. */
struct memory_reader {
	const struct snapshot *snapshot;
	uint64_t hole_end;              /* of the hole found last: no data from hole_begin to here */
	uint64_t hole_begin;
	uint64_t zeros_sum, zeros_len; /* of zeros_len zeros; 0: not known yet */
};

/* How many chunks there are, and the bytes of one. */
uint64_t memory_reader_chunks(const struct memory_reader *reader);
size_t memory_reader_len(const struct memory_reader *reader, uint64_t chunk);

/*
 * Reads a chunk into buffer (SNAPSHOT_SUM_BYTES); or, if it is a hole, sets *hole and leaves buffer. -EBADMSG: its bytes
 * are not those that were written.
 */
int memory_reader_read(struct memory_reader *reader, uint64_t chunk, void *buffer, bool *hole, struct err *err);

/* The bytes of the file that are not holes. */
int snapshot_data_bytes(int fd, uint64_t size, uint64_t *ret);

/* Reads and checks everything in the snapshot: sums, a diff's pages, the description, the sizes of disks. */
int snapshot_verify(const struct snapshot *snapshot, const struct snapshot_progress *progress, struct err *err);
