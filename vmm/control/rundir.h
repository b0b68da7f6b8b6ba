/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime folder of a machine: $XDG_RUNTIME_DIR/mvmm/NAME/, or /run/mvmm/NAME/ where that variable is not set. It
 * holds "pid", whose lock is the claim on the name, and "control.sock". A lock dies with its process, so what a crash
 * leaves behind hinders nobody and is taken over without a word.
 */
#pragma once

#include "core/err.h"

struct rundir;

/*
 * Claims name (see machine_name_check), makes the folder (0700) and empties it of what a dead machine left.
 * -EADDRINUSE when a live one has it; err then names its process. The folder is removed by rundir_release or by the
 * next one to claim the name.
 */
int rundir_claim(const char *name, struct rundir **ret, struct err *err);

/* Removes the folder with everything in it and gives the name free. NULL is fine. */
void rundir_release(struct rundir *rundir);

/* A listening socket "control.sock" in the folder, non-blocking. */
int rundir_listen(struct rundir *rundir, int *ret_fd, struct err *err);

/* ---- for those who talk to machines ---- */

/* Connects to the control socket of a machine; -ENOENT with a sentence when there is none of that name. */
int rundir_connect(const char *name, int *ret_fd, struct err *err);

/* Calls fn for each live machine, in no order, and removes the folders of dead ones; nonzero from fn ends it. */
int rundir_each(int (*fn)(void *opaque, const char *name, pid_t pid), void *opaque, struct err *err);
