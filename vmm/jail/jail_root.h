/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that a jailed machine sees: the folder of --jail is "/", with the folders of --allow under their own paths.
 * mvmm adds /dev, with the devices that the machine has open and no others; /proc/self, of its own process; and /sys,
 * read-only, if it has host devices. They are mounts of the machine's own namespace, so that they end with it.
 *
 * A folder that mvmm makes is known by its mode. Several machines may share the folder of a jail; the last one to end
 * removes what was made there, because the mounts of the others would go with it.
 *
 * Used by jail.c in three processes' times: the keeper makes the folders that are missing and removes them at the end; the
 * machine mounts while it has one thread, and sees all of the host's files until it closes the door.
 */
#pragma once

#include "vmm/config/jail_options.h"

struct jail_root {
	const struct jail_options *options;
	bool sysfs;
	char *path;  /* of the folder, absolute and without links */
	int host_fd; /* the folder, in the host's tree, with a shared lock */
	int root_fd; /* the mount that becomes "/" */
	int dev_fd;  /* its /dev */
};

/*
 * Checks the folders of --allow, whether there is a jail or not: from now on, each has its path without links. -EINVAL and
 * others, with the message.
 */
int jail_root_find_allowed(struct jail_options *options, struct err *err);
/*
 * Opens the folder and makes the folders in it that things are mounted on. sysfs: the machine has host devices. Links in
 * the folder are not followed. After a failure nothing is left. jail_root_done frees.
 */
int jail_root_make(struct jail_root *root, const struct jail_options *options, bool sysfs, struct err *err);
/* In a new mount namespace: mounts all of it; the host's files stay visible. */
int jail_root_mount(struct jail_root *root, struct err *err);
/* Makes the nodes of the devices that this process has open, and the folder the root of all threads. */
int jail_root_enter(struct jail_root *root, struct err *err);
/*
 * Once, after it, on any thread that has its rights: nothing of the host is left but what is open; the old root has no
 * place, and goes with its last file. The kernel waits for all processors.
 */
int jail_root_leave(const struct jail_root *root, struct err *err);
/* Removes the folders that were made, unless another machine has this folder, too, and closes all. */
void jail_root_remove(struct jail_root *root);
/* Closes all, in the process that does not remove them. */
void jail_root_done(struct jail_root *root);
