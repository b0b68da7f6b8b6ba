/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads and writes that do not wait, on a descriptor that other processes may share (stdin, stdout, stderr, a
 * terminal). O_NONBLOCK belongs to the open file description, so it is never set on one that was passed in. Any thread;
 * nothing else of this process writes to the same descriptor at the same time.
 */
#pragma once

#include "core/util.h"

#include <sys/uio.h>

/* Where bytes go; fd is not owned, -1: nowhere. */
struct nowait_out {
	int fd;
	bool socket, file; /* file: a regular one, which is always ready */
	size_t chunk;      /* bytes that one write takes without waiting */
};

struct nowait_out nowait_out(int fd);
/* Returns what was written, which may be less than len; -EAGAIN: nothing now; other -errno. Raises no SIGPIPE for
 * sockets. */
ssize_t nowait_write(const struct nowait_out *out, const void *data, size_t len);
/* As readv(2), but -EAGAIN where that would wait, and other -errno. */
ssize_t nowait_readv(int fd, const struct iovec *iov, int count);

/*
 * Another open file description of the terminal or pipe behind fd, with O_NONBLOCK and write access, or -1: a file
 * keeps its position and O_APPEND, a socket has only one description, and to open the master of a pty makes another
 * pty.
 */
int nowait_reopen(int fd);
