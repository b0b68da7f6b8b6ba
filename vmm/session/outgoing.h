/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The migration of a machine to another host, for its session: the thread on which migration/source.c runs, the calls
 * from it to the machine on the event loop's thread, and the replies to those who wait. All calls are made on the
 * loop's thread.
 */
#pragma once

#include "core/event_loop.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/operations.h"

struct outgoing;

struct outgoing_host {
	struct event_loop *loop;
	const struct log *log;
	struct machine *machine;
	const char *name; /* the machine's; outlives it */
	int *reached;     /* the socket of a unix: address (O_PATH), taken on success; NULL or -1: by its path */
	/* The guest runs on the target: this machine must end. */
	void (*gone)(void *opaque);
	/* It has ended, and the guest runs on here. */
	void (*stays)(void *opaque);
	/* Its state has changed. NULL: nobody wants to know. */
	void (*changed)(void *opaque, const struct migration_report *report);
	void *opaque;
};

/* Starts it; request, fd and reply are as for operations.migrate. */
int outgoing_create(const struct outgoing_host *host, struct migration_request *request, int *fd,
		    const struct migration_reply *reply, struct outgoing **ret, struct err *err);

/* Cancels it with that reason if still possible, waits for its end, and replies. NULL is fine. */
void outgoing_destroy(struct outgoing *outgoing, const char *reason);

/* Cancels it; the result comes later. -EBUSY if it is too late, -ENOENT if it has ended. */
int outgoing_cancel(struct outgoing *outgoing, const char *reason, struct err *err);

/* Where it goes, for messages. */
const char *outgoing_to(const struct outgoing *outgoing);
/* It is in progress or unresolved: devices, pause and resume must not change meanwhile. NULL is not active. */
bool outgoing_active(const struct outgoing *outgoing);
/* Its thread has not ended; NULL: no. */
bool outgoing_at_work(const struct outgoing *outgoing);
/* NULL if there was never a migration. */
const struct migration_report *outgoing_report(const struct outgoing *outgoing);

/*
 * The guest continues here, or (false) runs on the target. sure: also if a disk's lock does not show that the target
 * does not write it, else -EPERM. -EINVAL if there is nothing to resolve.
 */
int outgoing_resolve(struct outgoing *outgoing, bool go_on, bool sure, struct err *err);
