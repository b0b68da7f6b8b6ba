/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flushes the source's shared disks, so that the target reads from storage what the guest wrote: in each round while
 * the guest runs, so that little is left, and once more when it is paused. A thread of its own waits for storage;
 * neither the event loop nor a vCPU does, and a migration that is cancelled does not either.
 *
 * Called by the migration's thread.
 */
#pragma once

#include "core/err.h"

/* A disk that both hosts use and that the guest writes through the page cache. */
struct disk_shared {
	char id[64];
	int fd;              /* owned by the disk; used during disk_flusher_create only */
	int (*flush)(int fd); /* fdatasync(2), or what a test puts there */
};

struct disk_flusher;

/*
 * The disks are opened a second time: an error that a flush of this descriptor reports is still reported to the guest's
 * own next flush.
 */
int disk_flusher_create(const struct disk_shared *disks, size_t count, struct disk_flusher **ret, struct err *err);
/* Does not wait for a flush in progress. Here and below NULL means that there are no such disks. */
void disk_flusher_destroy(struct disk_flusher *flusher);

/* Begins to flush everything that was written before this call. */
void disk_flusher_begin(struct disk_flusher *flusher);
/* No flush is in progress. */
bool disk_flusher_idle(struct disk_flusher *flusher);
/* The first failure: it names the disk. */
int disk_flusher_check(struct disk_flusher *flusher, struct err *err);
/*
 * Waits until all has been flushed. -ECANCELED if cancel_fd becomes readable before, -ETIMEDOUT at the deadline (ms of
 * monotonic_ms; below 0: none); or the failure.
 */
int disk_flusher_wait(struct disk_flusher *flusher, int cancel_fd, int64_t deadline, struct err *err);

/* How long (ns) a flush would take that begins now: as long as the last one, and the rest of one in progress. */
uint64_t disk_flusher_time(struct disk_flusher *flusher);
