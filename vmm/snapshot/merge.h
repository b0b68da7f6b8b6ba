/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges a snapshot and the diffs that were taken after it into one new snapshot, which restores the moment of the last
 * diff and has its id: further diffs fit to it. If the first one is a diff, the result is a diff with its parent.
 */
#pragma once

#include "vmm/snapshot/memory_reader.h"

#define SNAPSHOT_MERGE_MAX 256u /* folders */

struct snapshot_merge {
	const char *const *folders; /* in the order in which they were taken */
	size_t count;               /* at least 2 */
	const char *to;
	bool replace;               /* to may exist */
	bool sync;
	struct snapshot_progress progress;
};

/*
 * Everything that is read is checked against its sums. Kernel, initrd and copies of disks come along, by reflink where
 * the file system can, else copied. After an error there is no new folder. -EINVAL: the folders do not follow each
 * other; -EBADMSG, -EBUSY, -EEXIST, ...: as snapshot_open and snapshot_folder_begin.
 */
int snapshot_merge(const struct snapshot_merge *merge, struct err *err);
