/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of connecting. A dialer is one session with an id that only its peer learns; it connects the
 * session's channels and exchanges HELLOs. Used on the migration's threads; calls block.
 */
#pragma once

#include "vmm/migration/address.h"
#include "vmm/migration/channel.h"

#define DIALER_CONNECT_MS 10000

struct dialer;
struct tls;

struct dialer_options {
	const struct address *to; /* copied; on success create takes over its descriptor, if it is one */
	int cancel_fd;            /* see channel_options */
	unsigned int silence_ms;  /* see channel_options */
	const char *tls;          /* folder of certificates (tls.h), or NULL: no TLS. Outlives the dialer */
	const char *tls_peer;     /* the name in the target's certificate; NULL: the host of `to`. Outlives the dialer */
	const char *tls_helper;   /* see tls_options */
	int asker;                /* a socket to the process that makes the connections, with TLS (socket_ask); not owned. 0: none */
};

int dialer_create(const struct dialer_options *options, struct dialer **ret, struct err *err);
/* The channels stay. NULL is fine. */
void dialer_destroy(struct dialer *dialer);

/* Connects a channel's socket, with TLS if that is asked for; *tls, or NULL, must outlive it. Errors as below. */
int dialer_open(struct dialer *dialer, int *ret, struct tls **tls, struct err *err);

/*
 * Connects a channel and exchanges HELLOs, all within DIALER_CONNECT_MS. The first call makes the control channel, 0 of
 * 1; the others connect to the same address. -EREMOTEIO with the target's message if it refuses, -EPROTONOSUPPORT if no
 * version fits, -EACCES if a certificate is not accepted.
 */
int dialer_connect(struct dialer *dialer, enum wire_kind kind, uint32_t index, uint32_t count, struct channel **ret,
		   struct err *err);
