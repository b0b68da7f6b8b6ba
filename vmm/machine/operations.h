/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be done to a running machine: one table, which session/ implements and every front end calls (the control
 * socket today). A front end translates between the protocol of its clients and this table; it decides nothing.
 *
 * All calls come from the event loop's thread, and so do the replies of long operations. -EBUSY: not possible now.
 * Sentences are shown behind the machine's name: "is being migrated".
 */
#pragma once

#include "core/err.h"
#include "vmm/migration/report.h"
#include "vmm/migration/request.h"

struct session; /* the implementation's own */

/* Called as a migration goes on, and once at its end: the state is MIGRATION_DONE, or text says why not. */
struct migration_reply {
	void (*progress)(void *opaque, const struct migration_report *report);
	void (*done)(void *opaque, const struct migration_report *report);
	void *opaque;
};

struct operations {
	/*
	 * What it is and how it does, the caller's: "name", "pid", "cpus", "memory" (bytes), "uptime" (seconds),
	 * "state" ("running", "paused", "arriving", "migrating" or "unresolved"), "devices" (objects with at least "id"
	 * and "kind") and more.
	 */
	int (*describe)(struct session *session, json_t **ret, struct err *err);
	/* Stop and start the guest's CPUs and devices; fine when that is already so. */
	int (*pause)(struct session *session, struct err *err);
	int (*resume)(struct session *session, struct err *err);
	/* force: the machine ends now. Else the power button is pressed, and it ends when the guest says so. */
	int (*stop)(struct session *session, bool force, struct err *err);
	/* Asks the guest to give bytes of its memory back. -ERANGE for more than it has, -ENODEV without a balloon. */
	int (*set_balloon)(struct session *session, uint64_t bytes, struct err *err);
	/* Plugs in a device of the host, written as for --vfio; *id is valid as long as the device is there. */
	int (*add_device)(struct session *session, const char *vfio, const char **id, struct err *err);
	/*
	 * Takes out the device of this id: at once with force, else when the guest has let it go, for which it has
	 * timeout_ms. done is called when it is out (code 0, err NULL), or with -ETIMEDOUT and the sentence; not if
	 * this fails.
	 */
	int (*remove_device)(struct session *session, const char *id, bool force, unsigned int timeout_ms,
			     void (*done)(void *opaque, int code, const struct err *err), void *opaque,
			     struct err *err);
	/*
	 * Begins to move the machine to another host. On success *fd (-1: none) and the content of request are taken
	 * over, and reply, which is copied, is called from then on.
	 */
	int (*migrate)(struct session *session, struct migration_request *request, int *fd,
		       const struct migration_reply *reply, struct err *err);
	/* How that goes, or how the last one ended; valid until the function returns to the loop. */
	const struct migration_report *(*migration_status)(struct session *session);
	/* Asks it to end; the reply comes later. -ENOENT: none is under way, -EBUSY: it is too late. */
	int (*migration_cancel)(struct session *session, struct err *err);
	/* In MIGRATION_UNRESOLVED: the guest goes on here, or this machine ends. -EINVAL in any other state. */
	int (*migration_resolve)(struct session *session, bool go_on, struct err *err);
};

/* A machine and its operations, as a front end is given them; outlives the front end. */
struct operated {
	const struct operations *ops;
	struct session *session;
};
