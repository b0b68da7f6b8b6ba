/* SPDX-License-Identifier: Apache-2.0 */
/* A UNIX socket on an abstract address that the kernel chooses (unix(7)), and its clients. */
#pragma once

#include "tests/unit/test.h"

#include <sys/socket.h>
#include <sys/un.h>

/* A listening socket, which does not block, and its address. */
static inline int local_listen(struct sockaddr_un *at, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*at = (struct sockaddr_un){.sun_family = AF_UNIX};
	CHECK_EQ(bind(fd, (struct sockaddr *)at, sizeof(sa_family_t)), 0);
	*len = sizeof(*at);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)at, len), 0);
	CHECK_EQ(listen(fd, 32), 0);
	return fd;
}

/* A client's connection, which waits that long for what it receives. */
static inline int local_connect(const struct sockaddr_un *at, socklen_t len, unsigned int patience_s)
{
	const struct timeval limit = {.tv_sec = patience_s};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(connect(fd, (const struct sockaddr *)at, len), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}
