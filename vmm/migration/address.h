/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a migration goes to or comes from, as people write it:
 *
 *	tcp:HOST[:PORT]    an address or a name, IPv6 in brackets; to listen HOST may be left out, which means every address
 *	unix:PATH          a socket in the file system
 *	fd:N               a descriptor of this process: a listening socket for the receiver; for either side a connected
 *	                   Unix socket, over which further channels are handed as descriptors; for the sender also a connected
 *	                   TCP socket, to whose peer further channels connect
 *
 * Used by the commands, which name the option in front of the sentence, and by dialer.c and acceptor.c.
 */
#pragma once

#include "core/err.h"

#define ADDRESS_PORT "7150"
#define ADDRESS_MAX_HOST 255u

enum address_kind { ADDRESS_TCP, ADDRESS_UNIX, ADDRESS_FD };

struct address {
	enum address_kind kind;
	char host[ADDRESS_MAX_HOST + 1]; /* "": every address */
	char port[6];
	char path[108]; /* fits sun_path with its zero */
	int fd;
	char text[ADDRESS_MAX_HOST + 32]; /* as it is shown: "tcp:host:7150" */
};

/* Reads text. listening: HOST may be left out. -EINVAL with a sentence that says what to write instead. */
int address_parse(const char *text, bool listening, struct address *ret, struct err *err);

/* Nothing that is sent there leaves this host: a Unix socket, a descriptor, or a loopback address or localhost. */
bool address_is_local(const struct address *address);
