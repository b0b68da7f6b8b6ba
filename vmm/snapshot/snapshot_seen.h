/* SPDX-License-Identifier: Apache-2.0 */
/* Whether an open snapshot is still what it was, for a process that restores it much later. */
#pragma once

#include "vmm/snapshot/snapshot_open.h"

#include <sys/stat.h>

struct snapshot_seen {
	struct stat state, memory;
};

int snapshot_see(const struct snapshot *snapshot, struct snapshot_seen *ret, struct err *err);

/*
 * -ESTALE and a sentence: the files were written, truncated or removed since, or the folder's path leads to another
 * snapshot.
 */
int snapshot_check_seen(const struct snapshot *snapshot, const struct snapshot_seen *seen, struct err *err);
