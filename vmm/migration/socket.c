/* SPDX-License-Identifier: Apache-2.0 */
/* See socket.h. */
#include "vmm/migration/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "core/monotonic.h"
#include "vmm/migration/channel.h"

int socket_wait(int fd, short events, int cancel_fd, int64_t deadline, struct err *err)
{
	struct pollfd fds[] = {{.fd = fd, .events = events}, {.fd = cancel_fd, .events = POLLIN}};
	int n;

	do {
		n = poll(fds, ARRAY_SIZE(fds), monotonic_left(deadline));
	} while ((n < 0 && errno == EINTR) || (n == 0 && monotonic_ms() < deadline));
	if (n < 0)
		return err_sys(err, -errno, "poll");
	if (fds[1].revents)
		return err_set(err, -ECANCELED, "cancelled");
	return n ? 0 : err_set(err, -ETIMEDOUT, "timed out");
}

int socket_prepare(int fd, unsigned int silence_ms, struct err *err)
{
	unsigned int timeout = silence_ms ?: CHANNEL_SILENCE_MS;
	int flags = fcntl(fd, F_GETFL), family = AF_UNSPEC, one = 1;
	socklen_t size = sizeof(family);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
		return err_sys(err, -errno, "socket");
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout)) < 0)
		return err_sys(err, -errno, "TCP options");
	return 0;
}

int socket_judge(int fd, enum socket_use *ret, struct err *err)
{
	int family, type, listens;
	socklen_t size = sizeof(int), len = sizeof(struct sockaddr_storage);
	struct sockaddr_storage peer;

	if (fcntl(fd, F_GETFD) < 0)
		return err_set(err, -EBADF, "no such descriptor is open");
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || type != SOCK_STREAM ||
	    (family != AF_UNIX && family != AF_INET && family != AF_INET6))
		return err_set(err, -EINVAL, "it is not a TCP or Unix stream socket");
	if (!listens && getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
		return err_set(err, -ENOTCONN, "the socket is neither connected nor listening");
	*ret = listens ? SOCKET_LISTENS : family == AF_UNIX ? SOCKET_DOOR : SOCKET_TCP;
	return 0;
}

int socket_pass(int door, int fd, struct err *err)
{
	char byte = 'c';
	struct iovec iov = {&byte, 1};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	*header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(door, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
		return errno == EPIPE ? err_set(err, -ECONNRESET, "the other end is closed") :
					err_sys(err, -errno, "passing a socket");
	return 0;
}

/* Takes the descriptors of a message: keeps one and closes the others. */
static int socket_first_right(struct msghdr *message)
{
	int fd = -1;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
			int each;

			memcpy(&each, (char *)header + at, sizeof(each));
			fd_close(&fd);
			fd = each;
		}
	}
	return fd;
}

int socket_take(int door, int *ret, struct err *err)
{
	char byte;
	struct iovec iov = {&byte, 1};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(door, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n < 0)
		return err_sys(err, -errno, "receiving a socket");
	if (n == 0)
		return err_set(err, -ECONNRESET, "the other end was closed");
	fd = socket_first_right(&message);
	if (fd < 0)
		return err_set(err, -EPROTO, "a byte without a socket was received; start the sender with --to fd:N");
	*ret = fd;
	return 0;
}

/* ---- connections of another process ---- */

#define REPLY_MAX 600u /* "-111 text" */

static int socket_read_reply(const char *text, size_t len, int *fd, int *ret, struct err *err)
{
	char *words;
	long code = strtol(text, &words, 10);

	if (len == 1 && text[0] == '0' && *fd >= 0) {
		*ret = take_fd(fd);
		return 0;
	}
	if (!len || *words != ' ' || code >= 0 || code < -4095)
		return err_set(err, -ECONNRESET, "who asked for the migration has ended and makes no connections any more");
	return err_set(err, (int)code, "%s", words + 1);
}

int socket_ask(int asker, int cancel_fd, int64_t deadline, int *ret, struct err *err)
{
	char text[REPLY_MAX + 1] = "";
	struct iovec iov = {text, REPLY_MAX};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	_cleanup_(fd_close) int fd = -1;
	ssize_t n;
	int code = 0;

	if (send(asker, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
		code = socket_wait(asker, POLLIN, cancel_fd, deadline, err);
	if (code)
		return code == -ETIMEDOUT ? err_set(err, code, "no answer") : code;
	n = recvmsg(asker, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	fd = n < 0 ? -1 : socket_first_right(&message);
	return socket_read_reply(text, n < 0 ? 0 : (size_t)n, &fd, ret, err);
}

int socket_asked(int asker)
{
	char byte;
	ssize_t n = recv(asker, &byte, 1, MSG_DONTWAIT);

	return n > 0 ? 0 : n < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : -ECONNRESET;
}

int socket_reply(int asker, int fd, int code, const struct err *why)
{
	char text[REPLY_MAX + 1] = "0";
	struct iovec iov = {text, 1};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (code) {
		snprintf(text, sizeof(text), "%d %s", code, why->text);
		iov.iov_len = strlen(text);
	} else {
		control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
						  .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	return sendmsg(asker, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}
