/* SPDX-License-Identifier: Apache-2.0 */
/* Copies a file into an empty one, sparse: for the disks and the kernel that go into the folder of a snapshot. */
#pragma once

#include "core/err.h"
#include "vmm/snapshot/memory_reader.h"

/*
 * Makes to share its storage with from (FICLONE), which takes no time and no space. -EOPNOTSUPP: the file system cannot,
 * or they are on two.
 */
int file_copy_reflink(int from, int to, struct err *err);

/* Copies the data; holes stay holes. -ECANCELED: tick said so. */
int file_copy(int from, int to, const struct snapshot_progress *progress, struct err *err);
