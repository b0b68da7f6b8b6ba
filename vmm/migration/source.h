/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of a migration: a table of steps, each with its undo. The machine is behind a table of functions,
 * so that tests can simulate it.
 *
 * The guest runs here until it is paused for the switchover. If anything fails before GO was sent, it continues here.
 * After GO it does not continue here by itself: the target replies that it runs the guest (DONE), or that it does not
 * and never will (the guest continues here). If that reply is lost, the guest stays paused here and the user decides
 * (UNRESOLVED).
 */
#pragma once

#include "vmm/migration/source_config.h"

struct migration_source;

/* fd: for a request to "fd", the connection; else the process that makes the connections (socket_ask), or -1. Taken over. */
int migration_source_create(const struct migration_source_config *config, int *fd, struct migration_source **ret,
			    struct err *err);
/* NULL is fine. */
void migration_source_destroy(struct migration_source *source);

/*
 * Runs the migration on the calling thread. report->state is DONE, FAILED (the guest continues here, unless it ended
 * meanwhile) or UNRESOLVED; report->text has the reason.
 */
void migration_source_run(struct migration_source *source, struct migration_report *report);

/* Cancels the migration, from any thread; both sides show reason. -EBUSY: too late, GO is about to be sent. */
int migration_source_cancel(struct migration_source *source, const char *reason, struct err *err);
