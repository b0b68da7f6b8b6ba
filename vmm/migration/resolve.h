/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket addresses of a host that the user has named. An address in numbers is read here. A name is looked up by a
 * program of its own, mvmm-resolve: the system's name services are libraries that are loaded into whoever asks, take as
 * long as they like, and read files and the network. Used by dialer.c and acceptor.c, on the migration's threads.
 */
#pragma once

#include <sys/socket.h>

#include "core/err.h"

#define RESOLVE_TEXT 64u /* bytes of an address in numbers, with the name of its interface */
#define RESOLVE_MAX 8 /* addresses; further ones of a name are left out */

struct resolved {
	struct sockaddr_storage address;
	socklen_t len;
};

struct resolve_options {
	const char *host;   /* "": all addresses of this host, to listen on */
	const char *port;   /* digits */
	const char *helper; /* path of mvmm-resolve; NULL: the one that belongs to this program */
	int cancel_fd;      /* readable: the call ends with -ECANCELED */
	int64_t deadline;   /* ms of monotonic_ms */
};

/*
 * Returns how many addresses are in ret, in the order in which they are to be tried; at least one. -ENOENT with the
 * reason: there is none; -ETIMEDOUT; -ECANCELED.
 */
int resolve(const struct resolve_options *options, struct resolved ret[RESOLVE_MAX], struct err *err);

/* The other way: the address in numbers, and its port. False: it is of another family. */
bool resolve_write(const struct sockaddr_storage *address, char text[RESOLVE_TEXT]);
uint16_t resolve_port(const struct sockaddr_storage *address);
