/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a thread of a jailed machine gives up: other users and groups, all capabilities, programs that give more rights
 * (no_new_privs), and by Landlock all files outside of the root, TCP, the abstract sockets of others and signals to them.
 * Rights are each thread's own, so each drops them as its first act; a thread that is started later has none.
 */
#pragma once

#include "vmm/config/jail_options.h"

struct jail_rights {
	const struct jail_config *config;
	int ruleset_fd; /* of Landlock; -1: this kernel has none */
	int netns_fd;   /* the namespace without a network, ours; -1: the process is where it should be */
};

/* In the jail's root, on the main thread: makes the rules. A kernel without Landlock is no error. */
int jail_rights_prepare(struct jail_rights *rights, struct err *err);
/* Drops them for the calling thread. 0 if it has none already. After a failure the thread must not go on. */
int jail_rights_drop(const struct jail_rights *rights, struct err *err);
void jail_rights_done(struct jail_rights *rights);
