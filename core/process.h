/* SPDX-License-Identifier: Apache-2.0 */
/* Helper processes, which get descriptors: passt, mvmm-tls. */
#pragma once

#include <sys/types.h>

/*
 * Starts argv[0], searched in PATH. fds (at most 8) become its descriptors from 3 on, words_fd its stderr (-1:
 * /dev/null); stdin and stdout are /dev/null; it inherits no other descriptor. fds stay open here.
 *
 * A helper ends when its socket is closed, or by SIGKILL. It has its own process group, and SIGTERM, SIGINT, SIGHUP and
 * SIGQUIT are blocked in it: Ctrl-C on our terminal or a service manager that stops all of a service's processes must
 * not take the network from a guest that is shutting down. The caller reaps *pid; on -errno there is no process.
 */
int process_start(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid);
