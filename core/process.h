/* SPDX-License-Identifier: Apache-2.0 */
/* Helper processes, which get descriptors: passt, mvmm-tls. */
#pragma once

#include <sys/types.h>

/*
 * Starts argv[0], searched in PATH. fds (at most 8) become its descriptors from 3 on, words_fd its stderr (-1:
 * /dev/null); stdin and stdout are /dev/null. It has its own process group, so that Ctrl-C on our terminal does not
 * reach it, and no signal is blocked. fds stay open here. The caller reaps *pid; on -errno there is no process.
 */
int process_start(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid);
