/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address of the other host, as the user writes it:
 *
 *	tcp:HOST[:PORT]    an address or a name; IPv6 in brackets. A listener may omit HOST and then listens on every address
 *	unix:PATH          a socket in the file system
 *	fd:N               a descriptor of this process. Receiver: a listening socket. Both sides: a connected Unix socket,
 *	                   over which further channels are passed as descriptors. Sender: also a connected TCP socket;
 *	                   further channels connect to its peer
 *
 * Used by the commands, which put the option's name before the message, and by dialer.c and acceptor.c.
 */
#pragma once

#include "core/err.h"

#define ADDRESS_PORT "7150"
#define ADDRESS_MAX_HOST 255u

enum address_kind { ADDRESS_TCP, ADDRESS_UNIX, ADDRESS_FD };

struct address {
	enum address_kind kind;
	char host[ADDRESS_MAX_HOST + 1]; /* "": all addresses */
	char port[6];
	char path[108]; /* fits sun_path with its terminator */
	int fd;
	char text[ADDRESS_MAX_HOST + 32]; /* for messages: "tcp:host:7150" */
};

/* Parses text. listening: HOST may be omitted. -EINVAL with a message that says what to write instead. */
int address_parse(const char *text, bool listening, struct address *ret, struct err *err);

/* Whether data sent there, or received from there, stays on this host: a Unix socket, a loopback address, localhost. */
bool address_is_local(const struct address *address);
