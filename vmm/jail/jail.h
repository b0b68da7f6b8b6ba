/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail of --jail: what a guest that takes over the process finds. The order:
 *
 * 1. jail_enter, with one thread: the folders and the control group are made; the process splits into a keeper and the
 *    machine (jail_keeper.h). The machine joins the group, gets its limits and namespaces, and still sees the host's
 *    files and network: what options name is opened with the rights of who started it.
 * 2. jail_close, on the main thread at the door, before the guest runs: the folder becomes "/".
 * 3. jail_confine, in each thread before it looks at what strangers have written: its rights go (jail_rights.h), and the
 *    network; the threads that it starts have none. And once, before the last thread has been there: jail_leave.
 *
 * A user who is not root gets the same by a user namespace. Called by the session.
 */
#pragma once

#include "vmm/config/jail_options.h"

struct jail;

/* What the jail must know of the machine. */
struct jail_machine {
	bool host_devices; /* it shows /sys, and memory may be pinned */
};

/*
 * Checks the folders of --allow and splits the process. 0 in the machine, with *ret, or NULL if there is no jail. 1 in the keeper, after the machine has
 * ended and everything is removed: *code is its exit code, and its message was shown. -errno with the message for the
 * user in both processes: nothing is left behind. options live as long as the jail.
 */
int jail_enter(struct jail_options *options, const struct jail_machine *machine, struct jail **ret, int *code,
	       struct err *err);
/* The door. After a failure the guest must not run. NULL is fine. */
int jail_close(struct jail *jail, struct err *err);
/* Once, on a thread that has its rights: the host's files are gone, or the process ends with a message. NULL is fine. */
void jail_leave(const struct jail *jail);
/* The calling thread gives up its rights, or the process ends with a message. NULL is fine. */
void jail_confine(const struct jail *jail);
void jail_destroy(struct jail *jail);
