/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of a migration: a table of steps, each with what undoes it. The machine is behind a table of functions, so
 * that tests put a simulated one there.
 *
 * The guest runs here until it is stopped to be handed over, and goes on here whatever fails before the target was told GO.
 * After GO it never runs here again by itself: the target says that it runs (GONE) or that it does not and never will (it goes
 * on here); when that answer is lost, the guest stands here and a person decides (UNRESOLVED).
 */
#pragma once

#include "vmm/migration/source_config.h"

struct migration_source;

/* fd: for a request to "fd", taken over; else -1. */
int migration_source_create(const struct migration_source_config *config, int *fd, struct migration_source **ret,
			    struct err *err);
/* NULL is fine. */
void migration_source_destroy(struct migration_source *source);

/*
 * Runs it all on the calling thread. report->state is DONE, FAILED (the guest goes on here, or would if it had not come to its
 * own end) or UNRESOLVED, and report->text says why.
 */
void migration_source_run(struct migration_source *source, struct migration_report *report);

/* Ends it, from any thread, with reason as what is told to both sides. -EBUSY: too late, the target was told to go on. */
int migration_source_cancel(struct migration_source *source, const char *reason, struct err *err);
