/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door between the preparation of a machine and its life. Before it, the process opens what it was told to; behind
 * it, it reads what a guest, a peer or a file says, and can do little else.
 *
 *	door_create: from now on, each new thread is confined by its kind before anything else;
 *	door_serve:  there is a starter, for threads that need one before the door is closed;
 *	jail_close:  the files of the host are out of sight, if there is a jail;
 *	door_close:  they are gone, and the starter and the main thread are confined, too.
 *
 * A thread gives up its rights (jail.h), then the system calls that it does not need (seccomp.h). A vCPU's thread that
 * starts before the jail is closed waits for that; the starter is confined when the door is closed. One that works before (one
 * that reads ahead, or waits for a migration) has a filter, but the rights of the process, and cannot give them up: it ends
 * at the door, and one that is started behind it goes on (restore_memory_renew, migration_target_run). What a confined
 * thread may not do itself, the starter does for it (thread_call); the threads that this one starts have what it has left.
 *
 * A guest may be started before door_close: a vCPU's thread looks at nothing that the guest has written until the door is
 * closed (thread_settle).
 */
#pragma once

#include "core/err.h"
#include "core/log.h"
#include "vmm/jail/jail.h"
#include "vmm/jail/seccomp.h"

struct door;

struct door_options {
	struct jail *jail; /* or NULL */
	bool jail_closed;  /* already */
	enum seccomp_mode seccomp;
	const struct log *log; /* where the line of a call goes that is not allowed */
};

/* On the main thread. *ret: NULL if nothing is confined. options->log outlives the process's threads. */
int door_create(const struct door_options *options, struct door **ret, struct err *err);
/* On the main thread. NULL, or a door that serves: nothing. */
int door_serve(struct door *door, struct err *err);
/* On the main thread, after jail_close. NULL, or a door that is closed: nothing. After a failure the machine must end. */
int door_close(struct door *door, struct err *err);
/* The machine ends: what waits for the door ends, too. NULL is fine. */
void door_end(struct door *door);
/* After all threads but this one. The main thread stays confined. NULL is fine. */
void door_destroy(struct door *door);
