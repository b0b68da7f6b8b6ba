/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.3 for a migration's channels, with certificates on both ends. A separate program, mvmm-tls, does the handshake
 * on a connection. Then it either passes the keys to the kernel (kTLS), so that the socket is used as without TLS, or
 * stays and forwards the bytes. mvmm does not link the TLS library; no process has both the library and the guest's
 * memory.
 */
#pragma once

#include "vmm/migration/wire.h"

struct tls;

struct tls_options {
	const char *folder; /* contains ca.pem, cert.pem and key.pem */
	const char *helper; /* the program; NULL: mvmm-tls beside this program, or in its installed place */
	enum wire_side side;
	const char *peer; /* the name or address that the peer's certificate must be for; NULL or "": any */
};

/* Starts the handshake on a connected socket, which it takes. Does not wait. */
int tls_start(const struct tls_options *options, int *fd, struct tls **ret, struct err *err);

/* Readable when the handshake has ended. */
int tls_report_fd(const struct tls *tls);

/*
 * Call then: returns the socket for the channel in *fd; the object must outlive the channel. -EACCES with a message if
 * either side's certificate is not accepted, -EPROTO if the peer does not speak TLS, and others.
 */
int tls_finish(struct tls *tls, int *fd, struct err *err);

/* Call after the channel's socket was closed; data written to it is still sent. NULL is fine. */
void tls_destroy(struct tls *tls);
