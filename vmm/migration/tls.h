/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 for a migration's channels, certificates on both ends: a program of its own, mvmm-tls, shakes hands on a
 * connection and then either leaves it to the kernel (kTLS), so that it is read and written as without TLS, or stays between it
 * and us and moves the bytes. mvmm itself neither links the library nor holds it and the guest's memory in one process.
 */
#pragma once

#include "vmm/migration/wire.h"

struct tls;

struct tls_options {
	const char *folder; /* has ca.pem, cert.pem and key.pem */
	const char *helper; /* the program; NULL: mvmm-tls beside this one, or where it is installed */
	enum wire_side side;
	const char *host; /* source: the name or address that the target's certificate must be for; NULL or "": any */
};

/* Starts the handshake on a connected socket, which it takes. Does not wait. */
int tls_start(const struct tls_options *options, int *fd, struct tls **ret, struct err *err);

/* Readable when the handshake is over. */
int tls_report_fd(const struct tls *tls);

/*
 * After that: the socket for the channel into *fd, and the object stays as long as the channel. -EACCES with a sentence when either
 * side's certificate does not do, -EPROTO when the peer does not speak TLS, and others.
 */
int tls_finish(struct tls *tls, int *fd, struct err *err);

/* After the channel's socket was closed: what was written to it is still sent. NULL is fine. */
void tls_destroy(struct tls *tls);
