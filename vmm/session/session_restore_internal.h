/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `mvmm restore` share: session_restore.c restores at once, session_restore_wait.c prepares what it
 * can and waits for a request, session_restore_run.c is the command, session_api.c does it for a client of an HTTP API. No
 * other file includes this.
 */
#pragma once

#include "vmm/session/session.h"
#include "vmm/session/session_internal.h"
#include "vmm/snapshot/restore_request.h"
#include "vmm/snapshot/snapshot_open.h"
#include "vmm/snapshot/snapshot_seen.h"

struct restoring {
	struct session session;
	struct machine_config config;
	struct restore_options *options;
	struct snapshot *snapshot;
	struct restore_disks *disks; /* NULL in a recording, whose disks are copies */
	struct host_devices_migration *devices; /* until they run; or NULL */
	struct arrival_override *plugs;         /* those of the options that are plugged in later */
	size_t plug_count;
	struct session_record *record; /* of mvmm snapshot record; or NULL */
	struct snapshot_seen seen;     /* when the process began to wait */
	const struct restore_request *request; /* that is being looked at; or NULL */
	bool failed;                   /* to do what a request asked: the process ends */
	struct err err;                /* why */
};

/* ---- session_restore.c ---- */

/* All of it. */
int session_restore_begin(struct restoring *restoring, struct err *err);
/* Of the snapshot and the session, with half of a machine, whose memory is there (machine_prepare). */
int session_restore_prepare(struct restoring *restoring, struct err *err);
/* Before the machine opens its disks: those that here names, or the snapshot. */
int session_restore_find_disks(struct restoring *restoring, const struct machine_config *config,
			       const struct arrival_options *here, struct err *err);
/* A machine that nobody knows of must not begin to run: -EPIPE if whoever asked for it has gone. */
int session_restore_check_asker(const struct restoring *restoring, struct err *err);
/* No thread has rights behind it. */
int session_restore_close_door(struct restoring *restoring, struct err *err);
/* Gives the machine, which is complete but for that, what the snapshot says. */
int session_restore_load(struct restoring *restoring, struct err *err);
int session_restore_start(struct restoring *restoring, struct err *err);

/* ---- session_restore_wait.c ---- */

/* Returns when a request has made a machine, and it runs; or else when there will be none. */
int session_restore_wait(struct restoring *restoring, struct err *err);
