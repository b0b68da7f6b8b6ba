/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot of a machine, for its session: the thread on which snapshot/snapshot_take.c runs, and the replies to the
 * asker. When everything is written the asker makes the files last, and commits; if it goes away instead, the machine is
 * as if there had been no snapshot. All calls are made on the loop's thread.
 */
#pragma once

#include "core/event_loop.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/operations.h"

struct snapshot_thread;
struct track;

struct snapshot_thread_host {
	struct event_loop *loop;
	const struct log *log;
	struct machine *machine;
	struct machine_files *files;
	const struct machine_config *config;
	struct track *track; /* of the machine; outlives the snapshot */
	/* It was committed, and the machine is to end. */
	void (*stop)(void *opaque);
	/* It has ended, and the guest runs on. */
	void (*stays)(void *opaque);
	/* Its phase has changed. NULL: nobody wants to know. */
	void (*changed)(void *opaque, const struct snapshot_report *report);
	void *opaque;
	/*
	 * How long an asker may take to sync the files and to name them; a guest that is to end is paused meanwhile. 0:
	 * ten minutes.
	 */
	unsigned int commit_ms;
};

/* Starts it; files and reply are as for operations.snapshot. */
int snapshot_thread_create(const struct snapshot_thread_host *host, const struct snapshot_request *request,
			   struct snapshot_files *files, const struct snapshot_reply *reply,
			   struct snapshot_thread **ret, struct err *err);

/* Cancels it with that reason, waits for its end, and replies. NULL is fine. */
void snapshot_thread_destroy(struct snapshot_thread *thread, const char *reason);

/* Cancels it; the reply comes later. -ENOENT: there is none. */
int snapshot_thread_cancel(struct snapshot_thread *thread, const char *reason, struct err *err);
/* The files are complete and will last. -EINVAL: it has not been written, or is another one. */
int snapshot_thread_commit(struct snapshot_thread *thread, const char *id, struct err *err);

/* It is in progress or waits for the commit: nothing else may change the machine. NULL: no. */
bool snapshot_thread_active(const struct snapshot_thread *thread);
/* Its thread has not ended. NULL: no. */
bool snapshot_thread_at_work(const struct snapshot_thread *thread);
