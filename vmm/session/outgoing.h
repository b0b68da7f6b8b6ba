/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's way to another host, as its session sees it: the thread that migration/source.c runs on, what it asks of
 * the machine brought to the event loop's thread, and whoever waits for the outcome told. All calls come from the
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
	/* The guest runs elsewhere: this machine is to end. */
	void (*gone)(void *opaque);
	void *opaque;
};

/* Begins; request, fd and reply are as for operations.migrate. */
int outgoing_create(const struct outgoing_host *host, struct migration_request *request, int *fd,
		    const struct migration_reply *reply, struct outgoing **ret, struct err *err);

/* Ends it with that reason where that can still be done, waits for its end, and answers. NULL is fine. */
void outgoing_destroy(struct outgoing *outgoing, const char *reason);

/* Asks it to end; the outcome comes later. -EBUSY when it is too late, -ENOENT when it has ended. */
int outgoing_cancel(struct outgoing *outgoing, const char *reason, struct err *err);

/* It is under way, or unresolved: the machine keeps its shape, and who pauses or resumes it would be in its way. NULL is not. */
bool outgoing_active(const struct outgoing *outgoing);
/* NULL for one that was never begun. */
const struct migration_report *outgoing_report(const struct outgoing *outgoing);

/* The guest goes on here, or (with false) has gone. -EINVAL when there is nothing to resolve. */
int outgoing_resolve(struct outgoing *outgoing, bool go_on, struct err *err);
