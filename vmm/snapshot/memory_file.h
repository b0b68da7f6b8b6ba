/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes guest memory into a file, as memory_sender.h does into sockets: raw, region after region in ascending order,
 * each page at its own place. What was never touched is not read, pages of zeros become holes, and runs of pages are
 * written directly from guest memory with several writes in flight. Makes the checksums that a snapshot keeps.
 *
 * Called by the snapshot's thread, one call at a time. The guest may run and write during memory_file_write: a page that
 * changes must be marked again afterwards, as dirty sources do that were collected before.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/migration/memory_sender.h"
#include "vmm/snapshot/state_file.h"

struct memory_file;

struct memory_file_options {
	const struct guest_memory *memory; /* its regions do not change while the object exists */
	int fd;        /* a regular file for reading and writing, which is emptied; not owned */
	bool diff;     /* marked pages of zeros are written, too: what is a hole belongs to the parent */
	int cancel_fd; /* readable: calls end with -ECANCELED. Not owned; -1: none */
	/* Called about ten times a second during a call; nonzero ends the call. May be NULL. */
	int (*tick)(void *opaque, struct err *err);
	void *opaque;
};

/* Since the file was created. */
struct memory_file_stats {
	uint64_t pages;      /* written with their contents */
	uint64_t zero_pages; /* found to be zero, in what was looked at */
	uint64_t zero_ns;    /* part of busy_ns spent on chunks that were all zero, in calls with a deadline */
	uint64_t busy_ns;    /* spent in memory_file_write and memory_file_write_all */
	uint64_t at;         /* bytes of the file that memory_file_write_all has passed */
};

/* Gives the file its size. -ENOSPC, -EFBIG and others with a message that does not name the file. */
int memory_file_create(const struct memory_file_options *options, struct memory_file **ret, struct err *err);
/* NULL is fine. After a failure writes that were begun may still end, into a file that is of no use. */
void memory_file_destroy(struct memory_file *file);

/*
 * Writes marked pages until there are none, or until about deadline_ns (CLOCK_MONOTONIC; 0: none). A mark is cleared
 * right before its page is read, also if the call fails. On return everything has been written.
 */
int memory_file_write(struct memory_file *file, const struct memory_marks *marks, size_t count, uint64_t deadline_ns,
		      struct err *err);

/* Writes everything; the guest is paused, and nothing was written before. */
int memory_file_write_all(struct memory_file *file, struct err *err);

/*
 * After the last write; the guest may run again. Completes the sums, for which it reads what was not written by
 * memory_file_write_all: *sums, le64 for each SNAPSHOT_SUM_BYTES, owned by file.
 */
int memory_file_finish(struct memory_file *file, struct snapshot_bytes *sums, struct err *err);

void memory_file_get_stats(const struct memory_file *file, struct memory_file_stats *stats);
