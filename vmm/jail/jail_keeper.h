/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that has started a jailed machine: it keeps the rights that it was started with, looks at nothing that comes
 * from the machine but how it ends, passes signals on, and cleans up. The machine ends with it.
 */
#pragma once

#include "core/err.h"

#include <signal.h>

struct jail_keeper {
	sigset_t signals; /* that it waits for */
	sigset_t before;  /* the mask that it was started with */
};

/* Forks. 0 in the machine, its process number in the keeper, or -errno. The calling process has one thread. */
pid_t jail_keeper_fork(struct jail_keeper *keeper, struct err *err);
/* Waits for the machine's end: its exit code, or 128 and the number of the signal that ended it. */
int jail_keeper_wait(struct jail_keeper *keeper, pid_t machine);
