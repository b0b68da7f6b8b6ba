/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's listener. It reads the HELLO of each caller, adds the channels of one session, which the control channel
 * began, and refuses all other callers. Callers that send nothing or nonsense do not block the session; their number is
 * limited. Used on the migration's threads; calls block.
 */
#pragma once

#include "core/log.h"
#include "vmm/migration/address.h"
#include "vmm/migration/channel.h"

/* Callers that have not sent HELLO. One more replaces the oldest of the host that has the most. */
#define ACCEPTOR_MAX_WAITING 16
#define ACCEPTOR_HELLO_MS 5000      /* for HELLO */
#define ACCEPTOR_JOIN_MS 10000
/* TLS handshakes, each of which is a process: so many at once, as a session has channels, then one in each period. */
#define ACCEPTOR_HANDSHAKES 160
#define ACCEPTOR_HANDSHAKE_MS 50
/* Lines in the log about refused callers. */
#define ACCEPTOR_LINES 20
#define ACCEPTOR_LINE_MS 2000

struct acceptor;

struct acceptor_options {
	const struct address *from; /* copied; on success create takes over its descriptor, if it is one */
	const struct log *log;      /* gets a line for each refused caller; may be NULL */
	int cancel_fd;              /* see channel_options */
	unsigned int silence_ms;    /* see channel_options */
	const char *tls;            /* folder of certificates (tls.h), or NULL: no TLS. Outlives the acceptor */
	const char *tls_peer;       /* see tls_options; outlives the acceptor */
	const char *tls_helper;     /* see tls_options */
};

/* Listens when it returns. */
int acceptor_create(const struct acceptor_options *options, struct acceptor **ret, struct err *err);
/* Stops listening and closes waiting connections. Channels that were returned stay. NULL is fine. */
void acceptor_destroy(struct acceptor *acceptor);

/* The address that it listens on, for messages: "tcp:0.0.0.0:7150" with the actual port. Valid until destroy. */
const char *acceptor_text(const struct acceptor *acceptor);

/*
 * Waits for a source's control channel; timeout_ms -1 means no limit. The channel begins a session and replaces an
 * earlier one of this acceptor. -EPROTONOSUPPORT is logged, not returned: another caller may fit.
 */
int acceptor_control(struct acceptor *acceptor, int timeout_ms, struct channel **ret, struct err *err);

/*
 * Waits until `count` channels of this kind have joined the session. Returns them in the order of their index in
 * channels[count]: all or none. -ETIMEDOUT after ACCEPTOR_JOIN_MS; -EINTR if a frame arrives on the control channel
 * (the caller receives it); the error of channel_check if the control channel is lost.
 */
int acceptor_join(struct acceptor *acceptor, struct channel *control, enum wire_kind kind, uint32_t count,
		  struct channel **channels, struct err *err);
