/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of a machine's memory have changed since a snapshot, for diffs: those that the dirty sources have reported
 * if they were left on since then; or, in memory that is mapped privately from a snapshot's file, the pages that are
 * this process's own.
 *
 * It lives as long as the machine, and is used by the event loop's thread; while a snapshot is taken, by the snapshot's
 * thread where it says so. A snapshot takes the pages; if it is not committed, they are put back, so that the next diff
 * has them.
 */
#pragma once

#include "vmm/migration/page_set.h"
#include "vmm/snapshot/snapshot_report.h"

struct track;

/*
 * Both outlive it. restored: the id (16 bytes) of the snapshot from whose file memory was mapped when the machine was
 * made; NULL: it was not restored.
 */
int track_create(struct guest_memory *memory, struct dirty_set *dirty, const uint8_t *restored, struct track **ret,
		 struct err *err);
/* Stops the sources. NULL is fine. */
void track_destroy(struct track *track);

/* Whether the sources are on; they are from the first snapshot with request->track to the next without it or diff. */
bool track_on(const struct track *track);

/*
 * A snapshot begins: turns the sources on if it needs them. -ENOTSUP: a diff was asked for, and what has changed is not
 * known; the message has what to do. Before the guest is paused.
 */
int track_begin(struct track *track, const struct snapshot_request *request, struct err *err);

/* From here to the end of the snapshot: its parent (16 bytes; all zero: it is no diff). Any thread. */
const uint8_t *track_parent(const struct track *track);

/* On the snapshot's thread, while the guest runs: so that little is left to collect in the pause. */
int track_settle(struct track *track, struct err *err);
/* On the snapshot's thread, before the rounds of a diff that is live: the pages with which they begin. */
int track_first(struct track *track, const struct page_set **ret, struct err *err);
/*
 * On the snapshot's thread, in the pause, before memory is written if the snapshot is not live, else afterwards: takes
 * the pages. *ret: the diff's; NULL if the snapshot is none.
 */
int track_take(struct track *track, const struct page_set **ret, struct err *err);

/* The snapshot will last: changes count from it, if they are kept track of. */
void track_commit(struct track *track, const uint8_t id[16]);
/* It will not: everything is as before track_begin. No effect if there is none. */
void track_abort(struct track *track);
