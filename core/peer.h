/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of a connection on a UNIX socket, for servers on an event loop: the descriptors that come with what is
 * read, and what is still to be sent. Nothing here waits. A peer that sends more descriptors than it may has the rest
 * closed; one that reads slowly costs as much memory as is unsent, which the server bounds.
 */
#pragma once

#include "core/util.h"

#include <sys/types.h>

#define PEER_MAX_FDS 64u

struct peer {
	int fd;
	unsigned int most_fds; /* that it may send before they are taken or closed; at most PEER_MAX_FDS */
	/* private */
	int passed[PEER_MAX_FDS];
	size_t passed_count;
	char *out;
	size_t out_len, out_done;
};

/* Closes the connection and frees what belongs to it. */
void peer_done(struct peer *peer);

/* Reads up to room bytes, and the descriptors that come with them; returns and fails as recv(2) with MSG_DONTWAIT. */
ssize_t peer_receive(struct peer *peer, void *to, size_t room);
/* The descriptors that have come, now the caller's: fills fds with the first of them, up to max; how many. */
size_t peer_take_fds(struct peer *peer, int *fds, size_t max);
/* Closes those that nobody took. */
void peer_close_fds(struct peer *peer);

/* Has these bytes sent by the next peer_flush. False: there is no memory, and none of them will be. */
bool peer_append(struct peer *peer, const void *data, size_t len);
/* Sends what the socket takes. False: the other end has disconnected. */
bool peer_flush(struct peer *peer);
/* How many bytes are unsent. */
size_t peer_unsent(const struct peer *peer);
