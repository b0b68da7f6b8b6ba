/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file "prefetch" of a snapshot: the parts of its memory file that a restored guest touches first. `mvmm snapshot
 * record` restores once and writes it; restores with --memory-mode prefetch have these parts read by few large reads,
 * instead of one read for each page fault. This matters when the memory file is not in the page cache.
 *
 *	8 bytes "MVMMPREF", u32 version, u32 count, 16 bytes id of the snapshot, u64 bytes of memory,
 *	u64 XXH3-64 of all before it and of what follows,
 *	count times: u32 first page, u32 number of pages; ascending, apart
 *
 * little-endian, pages of 4 KiB. It is hostile; a wrong one costs time only.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/snapshot/snapshot_open.h"

#define PREFETCH_NEW ".prefetch.new" /* while it is written; also what a dead writer leaves in the folder */

struct prefetch_range {
	uint64_t offset, size; /* in the memory file; whole pages */
};

struct prefetch {
	uint64_t bytes; /* of all ranges */
	size_t count;
	struct prefetch_range ranges[];
};

/*
 * What this process has touched of memory that maps the snapshot's memory file: without holes of the file, ascending.
 * Ranges that are near each other are one. Freed with free().
 */
int prefetch_collect(const struct guest_memory *memory, struct prefetch **ret, struct err *err);

/* Writes the file into the folder, beside it first. It is there completely or not at all. -EBUSY: another one does so. */
int prefetch_save(const struct snapshot *snapshot, const struct prefetch *prefetch, struct err *err);

/* -ENOENT: there is none; -EBADMSG: damaged, or of another snapshot. Freed with free(). */
int prefetch_open(const struct snapshot *snapshot, struct prefetch **ret, struct err *err);
int prefetch_parse(const void *data, size_t len, const struct snapshot_state *state, struct prefetch **ret,
		   struct err *err);

/* Has a thread read the ranges of fd into the page cache. Takes over *prefetch. fd is duplicated. */
struct prefetch_job;
int prefetch_begin(struct prefetch **prefetch, int fd, struct prefetch_job **ret, struct err *err);
/* The file is mapped as this memory, which stays until prefetch_end: faults do not read ahead themselves meanwhile. */
void prefetch_map(struct prefetch_job *job, const struct guest_memory *memory);
/* A thread that is started now, and has what rights there are now, goes on with the rest. */
int prefetch_renew(struct prefetch_job *job, struct err *err);
/* Waits until it has asked for all; it soon has. NULL is fine. */
void prefetch_end(struct prefetch_job *job);
