/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control group of a jailed machine (version 2 of the kernel's interface, Documentation/admin-guide/cgroup-v2.rst).
 * Who starts the machine makes the group and sets its limits, the machine joins it, and the first one removes it when the
 * machine has ended. A group that exists already is used, and stays: it gets its limits back when nobody is left in it.
 */
#pragma once

#include "vmm/config/jail_options.h"

#define JAIL_CGROUP_FILES 4

struct jail_cgroup {
	int fd;   /* the group; -1: none */
	int above; /* the group that it is in */
	char *name; /* in that */
	bool made;
	char *before[JAIL_CGROUP_FILES]; /* what the files of limits had; NULL: they are not changed, or the group was made */
};

/*
 * Finds or makes the group and sets the limits. Without cgroup= there is none. -EACCES if this user may not; the message
 * says what to do. After a failure nothing is left.
 */
int jail_cgroup_make(struct jail_cgroup *group, const struct jail_config *config, struct err *err);
/* Moves the calling process, which has one thread. */
int jail_cgroup_join(const struct jail_cgroup *group, const struct jail_config *config, struct err *err);
/*
 * Ends what is left in a group that was made and removes it, or gives back the limits of one that was there; and closes it.
 * joined: the machine may have been in it. False: it could not be removed within a second.
 */
bool jail_cgroup_remove(struct jail_cgroup *group, bool joined);
/* Closes it, in the process that does not remove it. */
void jail_cgroup_done(struct jail_cgroup *group);
