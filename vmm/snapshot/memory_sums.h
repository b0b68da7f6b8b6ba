/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksums of a memory file while it is written: XXH3-64 of each SNAPSHOT_SUM_BYTES. A chunk that is written once
 * and at a stretch is summed from memory; of others the file is read afterwards. A chunk that is never mentioned is a
 * hole. memory_file.c uses it, on one thread.
 */
#pragma once

#include "vmm/snapshot/state_file.h"

#define MEMORY_SUMS_PAGE 4096u

struct memory_sums;

int memory_sums_create(uint64_t memory_bytes, struct memory_sums **ret, struct err *err);
/* NULL is fine. */
void memory_sums_destroy(struct memory_sums *sums);

/* Sums a chunk from its parts, in order: begin, then data and zeros until it is complete, then end. */
void memory_sums_begin(struct memory_sums *sums);
void memory_sums_add(struct memory_sums *sums, const void *data, size_t len);
void memory_sums_add_zeros(struct memory_sums *sums, uint64_t len);
void memory_sums_end(struct memory_sums *sums, uint64_t chunk);

/* The chunk's sum must be made of the file. */
void memory_sums_forget(struct memory_sums *sums, uint64_t chunk);

/*
 * Makes what is missing from the file, of which the pages in data (a bitmap) are not zero. check: called for each chunk
 * that is read; nonzero ends the call. *ret belongs to sums.
 */
int memory_sums_complete(struct memory_sums *sums, int fd, const unsigned long *data,
			 int (*check)(void *opaque, struct err *err), void *opaque, struct snapshot_bytes *ret,
			 struct err *err);
