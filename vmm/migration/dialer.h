/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's end of making connections: a dialer is one session, with an id that only its peer learns; every channel of
 * it is connected, greeted and thereby joined to the session. On one of the migration's own threads; calls block.
 */
#pragma once

#include "vmm/migration/address.h"
#include "vmm/migration/channel.h"

#define DIALER_CONNECT_MS 10000

struct dialer;

struct dialer_options {
	const struct address *to; /* copied; its descriptor, if it is one, is taken over when create succeeds */
	int cancel_fd;            /* as channel_options' */
	unsigned int silence_ms;  /* as channel_options' */
	const char *tls;          /* folder of certificates (tls.h), or NULL: no TLS. Outlives the dialer */
	const char *tls_helper;   /* as tls_options' */
};

int dialer_create(const struct dialer_options *options, struct dialer **ret, struct err *err);
/* The channels stay. NULL is fine. */
void dialer_destroy(struct dialer *dialer);

/*
 * Connects a channel and exchanges HELLOs, all within DIALER_CONNECT_MS: the first is the control channel, 0 of 1; the
 * others go where it went. -EREMOTEIO with the target's words when it refuses, -EPROTONOSUPPORT when no version fits, -EACCES
 * when either side's certificate does not do.
 */
int dialer_connect(struct dialer *dialer, enum wire_kind kind, uint32_t index, uint32_t count, struct channel **ret,
		   struct err *err);
