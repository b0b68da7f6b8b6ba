/* SPDX-License-Identifier: Apache-2.0 */
/* See peer.h. */
#include "core/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void peer_done(struct peer *peer)
{
	fd_close(&peer->fd);
	peer_close_fds(peer);
	free(take_ptr(peer->out));
}

/* ---- reading ---- */

static void peer_take_passed(struct peer *peer, struct msghdr *message)
{
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= header->cmsg_len; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
			if (peer->passed_count < peer->most_fds)
				peer->passed[peer->passed_count++] = fd;
			else
				close(fd);
		}
	}
}

ssize_t peer_receive(struct peer *peer, void *to, size_t room)
{
	char control[CMSG_SPACE(PEER_MAX_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {.iov_base = to, .iov_len = room};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = CMSG_SPACE(peer->most_fds * sizeof(int))};
	ssize_t n = recvmsg(peer->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n >= 0)
		peer_take_passed(peer, &message);
	return n;
}

size_t peer_take_fds(struct peer *peer, int *fds, size_t max)
{
	size_t count = MIN(peer->passed_count, max);

	for (size_t i = 0; i < count; i++)
		fds[i] = take_fd(&peer->passed[i]);
	return count;
}

void peer_close_fds(struct peer *peer)
{
	while (peer->passed_count)
		fd_close(&peer->passed[--peer->passed_count]);
}

/* ---- sending ---- */

bool peer_append(struct peer *peer, const void *data, size_t len)
{
	char *grown;

	peer->out_len -= peer->out_done;
	if (peer->out_done)
		memmove(peer->out, peer->out + peer->out_done, peer->out_len);
	peer->out_done = 0;
	grown = realloc(peer->out, peer->out_len + len);
	if (!grown)
		return false;
	memcpy(grown + peer->out_len, data, len);
	peer->out = grown;
	peer->out_len += len;
	return true;
}

bool peer_flush(struct peer *peer)
{
	while (peer->out_done < peer->out_len) {
		ssize_t n = send(peer->fd, peer->out + peer->out_done, peer->out_len - peer->out_done,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		peer->out_done += (size_t)n;
	}
	free(take_ptr(peer->out));
	peer->out_len = peer->out_done = 0;
	return true;
}

size_t peer_unsent(const struct peer *peer)
{
	return peer->out_len - peer->out_done;
}
