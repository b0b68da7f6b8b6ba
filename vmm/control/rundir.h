/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime folder of a machine: $XDG_RUNTIME_DIR/mvmm/NAME/, or /run/mvmm/NAME/ if that variable is not set. It
 * contains "pid", whose lock reserves the name, and "control.sock". The lock ends with its process, so the folder of a
 * crashed machine is reused. If somebody removes the folder, the name stays reserved, and the machine makes it again.
 */
#pragma once

#include "core/err.h"

struct rundir;

/*
 * Reserves name (see machine_name_check), creates the folder (0700) and removes files of a dead machine. -EADDRINUSE if
 * a running machine has the name; err then has its process. rundir_release removes the folder, or the next one to claim
 * the name does.
 */
int rundir_claim(const char *name, struct rundir **ret, struct err *err);

/*
 * Gives the folder, with what is in it, another name, which is reserved as by rundir_claim; the old one is free then. At
 * every moment clients find it by one of the two names. After a failure nothing has changed.
 */
int rundir_rename(struct rundir *rundir, const char *name, struct err *err);

/* Removes the folder and its files and releases the name. NULL is fine. */
void rundir_release(struct rundir *rundir);

/*
 * In a signal's handler, when the process is about to end: removes the folder, so that nobody finds it. NULL is fine.
 */
void rundir_abandon(const struct rundir *rundir);

/* The process that has claimed it, by the number that others see, also if it has a namespace of numbers of its own. */
pid_t rundir_pid(const struct rundir *rundir);

/* A listening socket "control.sock" in the folder, non-blocking. */
int rundir_listen(struct rundir *rundir, int *ret_fd, struct err *err);

/* After that: 0 if the folder is as it was; or makes it again and returns 1 and the new listening socket. */
int rundir_restore(struct rundir *rundir, int *ret_fd, struct err *err);

/* ---- for clients ---- */

/* Connects to the control socket of a machine; -ENOENT with a message if there is none of that name. */
int rundir_connect(const char *name, int *ret_fd, struct err *err);

/*
 * Calls fn for each running machine, in no order, and removes the folders of dead ones; nonzero from fn ends it. Root sees
 * those of a user's folder, too. -EPERM: it belongs to another user.
 */
int rundir_each(int (*fn)(void *opaque, const char *name, pid_t pid), void *opaque, struct err *err);
