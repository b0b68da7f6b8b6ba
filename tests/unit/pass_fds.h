/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that go along with a message, as a client sends them (unix(7), SCM_RIGHTS). */
#pragma once

#include "tests/unit/test.h"

#include <sys/socket.h>

#define PASS_FDS_MAX 100u

/* Sends all of the data and these descriptors, which stay ours. */
static inline void pass_fds(int to, const void *data, size_t len, const int *fds, unsigned int count)
{
	char space[CMSG_SPACE(PASS_FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
				 .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	CHECK(count && count <= PASS_FDS_MAX);
	*header = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	CHECK_EQ(sendmsg(to, &message, MSG_NOSIGNAL), (ssize_t)len);
}

/* The same with that many copies of one. */
static inline void pass_copies(int to, const void *data, size_t len, int fd, unsigned int count)
{
	int fds[PASS_FDS_MAX];

	for (unsigned int i = 0; i < PASS_FDS_MAX; i++)
		fds[i] = fd;
	pass_fds(to, data, len, fds, count);
}
