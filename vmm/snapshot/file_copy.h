/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the files of a snapshot, and copies others into it, sparse: disks and the kernel. */
#pragma once

#include "vmm/snapshot/snapshot_progress.h"

/*
 * Makes to share its storage with from (FICLONE), which takes no time and no space: 0, or -errno without a message.
 * -EOPNOTSUPP: the file system cannot, or they are on two.
 */
int file_copy_reflink(int from, int to);

/* Writes all of it: 0, or -errno without a message. */
int file_write(int fd, const void *data, size_t len, uint64_t offset);

/* Copies the data; holes stay holes. -ECANCELED: tick said so. */
int file_copy(int from, int to, const struct snapshot_progress *progress, struct err *err);
