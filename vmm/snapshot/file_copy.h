/* SPDX-License-Identifier: Apache-2.0 */
/* Copies a file into an empty one, sparse: for the disks and the kernel that go into the folder of a snapshot. */
#pragma once

#include "vmm/snapshot/snapshot_progress.h"

/*
 * Makes to share its storage with from (FICLONE), which takes no time and no space: 0, or -errno without a message.
 * -EOPNOTSUPP: the file system cannot, or they are on two.
 */
int file_copy_reflink(int from, int to);

/* Copies the data; holes stay holes. -ECANCELED: tick said so. */
int file_copy(int from, int to, const struct snapshot_progress *progress, struct err *err);
