/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that work for this one, on descriptors that they are handed: passt, mvmm-tls. */
#pragma once

#include <sys/types.h>

/*
 * Starts argv[0], found as a shell would, with fds as its descriptors 3 and on, and its stderr at words_fd (-1: nowhere); it reads
 * and prints nothing else. It is of a process group of its own, so that Ctrl-C on our terminal is not for it, and blocks no signal.
 * The descriptors stay the caller's; at most 8. -errno, and then there is no process; else the caller reaps *pid.
 */
int process_start(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid);
