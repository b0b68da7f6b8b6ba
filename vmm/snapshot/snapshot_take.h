/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes a snapshot of a machine: writes its memory, its state and its description into files that the asker has opened.
 * It runs on a thread of its own and reaches the machine through the table of a migration's source; for the machine, a
 * snapshot is a migration to files. The asker makes the files last: what is written here is neither synced nor named.
 *
 * A failure or cancel leaves the machine as it was before. The content of the files is then undefined.
 */
#pragma once

#include "vmm/snapshot/snapshot_config.h"

struct snapshot_take;

/* config's pointers outlive it. */
int snapshot_take_create(const struct snapshot_take_config *config, struct snapshot_take **ret, struct err *err);
/* NULL is fine. */
void snapshot_take_destroy(struct snapshot_take *take);

/*
 * Takes it on the calling thread. report->phase is WRITTEN, or FAILED with the reason in report->text. With
 * request->stop the machine is paused after WRITTEN, its host devices are stopped, and the table's end has not been
 * called; else it runs unless it was paused by the user.
 */
void snapshot_take_run(struct snapshot_take *take, struct snapshot_report *report);

/* Ends it soon, with that reason; no effect once everything is written. Any thread. */
void snapshot_take_cancel(struct snapshot_take *take, const char *reason);
