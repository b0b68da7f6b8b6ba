/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast a jailed machine may read and write block devices (io.max of its control group). The devices are those that its
 * open files are on, when the jail is closed: disks, whatever named them, and the files of its output. A file whose file
 * system has no block device of its own (btrfs, overlayfs, NFS, tmpfs) is not limited by it.
 */
#pragma once

#include "vmm/config/jail_options.h"

/*
 * On the main thread, while /proc and /sys are the host's. group_fd: the folder of its group. Without io= nothing. -ENODEV:
 * no open file is on a device; -E2BIG: they are on too many.
 */
int jail_io_limit(int group_fd, const struct jail_config *config, struct err *err);
/* Gives the devices of a group the limits that its io.max had before. */
void jail_io_give_back(int group_fd, const char *before);
