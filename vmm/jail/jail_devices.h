/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes in a jail's /dev. Called by jail_root.c. */
#pragma once

#include "core/err.h"

/*
 * For each device that this process has open and that a reboot of the guest opens again, makes its node in the empty file
 * system dev_fd, for the user and group (0: root's). Where nodes cannot be made (a user namespace), the host's are
 * mounted. -errno with the message.
 */
int jail_devices_make(int dev_fd, unsigned int uid, unsigned int gid, struct err *err);
