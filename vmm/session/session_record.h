/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm snapshot record`: a restored machine whose touched pages are listed until its guest writes the first byte to its
 * serial port or console, or a time has passed. Then it ends, and the list goes into the snapshot's folder
 * (snapshot/prefetch.h). What the guest writes is read by nobody.
 *
 * The machine runs as any other: it uses its networks, and would write to its disks. So each writable disk that the user
 * has not named otherwise is replaced by a copy that shares its blocks and has no name: of the disk that is kept in the
 * snapshot, if it is.
 */
#pragma once

#include "core/event_loop.h"
#include "core/guest_memory.h"
#include "core/log.h"
#include "vmm/snapshot/snapshot_open.h"

struct machine_config;
struct session_record;
struct arrival_options;

struct session_record_options {
	const struct snapshot *snapshot; /* outlives it */
	struct event_loop *loop;
	const struct log *log;
	uint64_t until_ns;
	void (*stop)(void *opaque); /* the machine must end. On the loop's thread */
	void *opaque;
};

/* Empties the page cache of the memory file, as far as nobody else has mapped it: only what is touched is read then. */
int session_record_create(const struct session_record_options *options, struct session_record **ret, struct err *err);
/* Removes what is on the loop. NULL is fine. */
void session_record_leave(struct session_record *record);
/* After the machine was destroyed. NULL is fine. */
void session_record_destroy(struct session_record *record);

/* Replaces the writable disks that here does not name. -ENOTSUP: one cannot be, and err says what to do. */
int session_record_set_disks(struct session_record *record, const struct arrival_options *here,
			     struct machine_config *config, struct err *err);
/* Where the guest's serial port and console write. Both owned by record. */
const int *session_record_out(const struct session_record *record);
/* The machine has been made and will run at once. */
int session_record_start(struct session_record *record, const struct guest_memory *memory, struct err *err);
/* It has ended, and its memory is still there. Writes the list, unless the machine ended in another way. */
int session_record_save(struct session_record *record, const struct guest_memory *memory, struct err *err);
