/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tells whether a disk has been written since its snapshot: a file by its inode and the time of its last change; a
 * block device by its instance and the sectors that have been written to it since the host's start. The guest is paused
 * and the disk has been flushed when the identity is taken (snapshot_disks.c), and the disk is locked when it is compared
 * (session/restore_disks.c).
 */
#pragma once

#include "vmm/snapshot/state_file.h"

/*
 * The guest is paused: a file's time of change advances in ticks before Linux 6.13, so that one that follows at once
 * could have the time of the last one. A file that has just changed gets a time that no tick has, if this user may set it.
 */
void disk_identity_settle(int fd);

/* The identity of the disk that fd has open; size is what the guest sees. */
int disk_identity_read(const char *id, int fd, uint64_t size, struct snapshot_disk *ret, struct err *err);

/*
 * Whether fd has open the disk of that identity, and nothing has written it since. boot_id: of the host's kernel then, as
 * in the snapshot. A block device that does not tell counts as changed. The size is not compared.
 */
bool disk_identity_same(const struct snapshot_disk *then, const uint8_t boot_id[16], int fd);

/* The id of the host's running kernel; zeros if it cannot be read. */
void disk_identity_boot_id(uint8_t ret[16]);
