/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rounds of a live snapshot: migration's (migration/loop.h), with a file at the other end. Memory is written while
 * the guest works; what it writes meanwhile is written again, until the pause for the rest is short. The pause is
 * predicted from rehearsals and from how fast memory was written.
 *
 * Called by the snapshot's thread, in this order: begin, rounds, then the pause by the caller, rest, end.
 */
#pragma once

#include "vmm/migration/page_set.h"
#include "vmm/migration/report.h"
#include "vmm/migration/source_config.h"
#include "vmm/snapshot/memory_file.h"
#include "vmm/snapshot/snapshot_devices.h"

struct live;

struct live_config {
	const struct migration_machine_ops *ops;
	void *machine;
	const struct migration_goal *goal; /* outlives it, as what follows */
	struct memory_file *file;
	struct snapshot_devices *devices;    /* that were started; or NULL */
	const struct page_set *only;         /* the pages that are written at first, of a diff; NULL: all. Copied */
	struct disk_flusher *flusher;        /* begun in each round, so that little is left for the pause; NULL: no disks */
	struct migration_progress *progress; /* filled */
	int cancel_fd;                       /* as memory_file's */
	int (*look)(void *opaque, struct err *err); /* several times a second; nonzero ends the rounds */
	void *opaque;
};

/* Starts the dirty sources. Pages are written from the first round on. */
int live_begin(const struct live_config *config, struct live **ret, struct err *err);

/* Until the pause would be short enough. -ETIME at the time limit of the goal. */
int live_rounds(struct live *live, struct err *err);

/*
 * The guest is paused, also the devices: writes what is left, and waits for the flush of disks. Until then the guest
 * may be throttled.
 */
int live_rest(struct live *live, struct err *err);

/* Stops the dirty sources, and the throttle. NULL is fine. */
void live_end(struct live *live);
