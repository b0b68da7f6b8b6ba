/* SPDX-License-Identifier: Apache-2.0 */
/* See nowait.h. */
#include "core/nowait.h"

#include "core/errand.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* poll(2) promises room for PIPE_BUF bytes in a pipe, and for one byte in a terminal. */
static size_t nowait_chunk(int fd, mode_t mode)
{
	if (S_ISREG(mode) || fcntl(fd, F_GETFL) & O_NONBLOCK)
		return SSIZE_MAX;
	return isatty(fd) ? 1 : PIPE_BUF;
}

struct nowait_out nowait_out(int fd)
{
	struct nowait_out out = {.fd = fd};
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0) {
		out.socket = S_ISSOCK(st.st_mode);
		out.file = S_ISREG(st.st_mode);
		out.chunk = nowait_chunk(fd, st.st_mode);
	}
	return out;
}

ssize_t nowait_write(const struct nowait_out *out, const void *data, size_t len)
{
	struct pollfd ready = {.fd = out->fd, .events = POLLOUT};
	ssize_t n;

	do {
		if (out->socket) {
			n = send(out->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else {
			poll(&ready, 1, 0);
			if (ready.revents & POLLNVAL)
				return -EBADF;
			if (ready.revents & POLLERR)
				return -EPIPE;
			if (!(ready.revents & POLLOUT))
				return -EAGAIN;
			n = write(out->fd, data, MIN(len, out->chunk));
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t nowait_readv(int fd, const struct iovec *iov, int count)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	ssize_t n;

	do {
		if (poll(&ready, 1, 0) == 0)
			return -EAGAIN;
		n = readv(fd, iov, count);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int nowait_reopen(int fd)
{
	char path[32];
	struct stat st;
	int number;

	if (fstat(fd, &st) < 0 || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		return -1;
	if (ioctl(fd, TIOCGPTN, &number) == 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return errand_open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
}
