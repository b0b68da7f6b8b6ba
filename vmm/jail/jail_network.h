/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of a jailed machine, which is none: an empty namespace. It takes the kernel longer to make one than
 * everything else of the jail together, so the keeper makes it, and stays in it, while the machine is prepared.
 */
#pragma once

#include "core/err.h"

struct jail_network {
	int keeper_fd, machine_fd; /* a socket's ends; -1: closed, or the network is one of the user's choice */
};

/* Before the process splits. After a failure there is nothing to close. */
int jail_network_open(struct jail_network *network, struct err *err);
/* In the keeper. A failure is the machine's to tell. */
void jail_network_make(struct jail_network *network);
/* In the machine, at the door: waits for the namespace. *ret: its descriptor, the caller's; as it was if there is to be none. */
int jail_network_take(struct jail_network *network, int *ret, struct err *err);
void jail_network_done(struct jail_network *network);
