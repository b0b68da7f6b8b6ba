/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters of system calls (seccomp(2)) for each kind of thread, and for our own helper programs. They are made by the build
 * from one table (seccomp_table_x86.c). A call that is not in it ends the process: one line names the thread and the call,
 * and the exit status is SECCOMP_EXIT. A call that is newer than the table fails with ENOSYS, as on an older kernel.
 */
#pragma once

#include "core/err.h"
#include "core/thread.h"
#include "vmm/config/config.h"

#define SECCOMP_EXIT 159 /* 128 + SIGSYS */

/*
 * Prepares the process: whether this kernel has what the mode needs, and where the line goes. prefix precedes it; it is
 * not copied. SECCOMP_OFF: nothing.
 */
int seccomp_prepare(enum seccomp_mode mode, int fd, const char *prefix, struct err *err);

/* The exit status of a process that makes a call which is not allowed, instead of SECCOMP_EXIT. */
void seccomp_set_exit(int status);

/* The mode that it was prepared for; before, that of the build. What the process starts has the same. */
enum seccomp_mode seccomp_mode(void);

/* The calling thread gets the filter of its kind, after no_new_privs. -errno. */
int seccomp_enter(enum seccomp_mode mode, enum thread_kind kind);
