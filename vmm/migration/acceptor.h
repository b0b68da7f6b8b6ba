/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's end of making connections: listens, hears every caller's HELLO, joins channels to the session that the
 * control channel began, and sends all others away. Callers that say nothing, or nonsense, hold nobody up and are few at
 * a time. On one of the migration's own threads; calls block.
 */
#pragma once

#include "core/log.h"
#include "vmm/migration/address.h"
#include "vmm/migration/channel.h"

#define ACCEPTOR_MAX_WAITING 16     /* callers that have not said HELLO yet; one more makes the oldest go */
#define ACCEPTOR_HELLO_MS 5000      /* time to say it */
#define ACCEPTOR_JOIN_MS 10000

struct acceptor;

struct acceptor_options {
	const struct address *from; /* copied; its descriptor, if it is one, is taken over when create succeeds */
	const struct log *log;      /* hears of callers that were sent away; may be NULL */
	int cancel_fd;              /* as channel_options' */
	unsigned int silence_ms;    /* as channel_options' */
	const char *tls;            /* folder of certificates (tls.h), or NULL: no TLS. Outlives the acceptor */
	const char *tls_helper;     /* as tls_options' */
};

/* Listens from its return on. */
int acceptor_create(const struct acceptor_options *options, struct acceptor **ret, struct err *err);
/* Stops listening and hangs up on who waits; channels that were handed out stay. NULL is fine. */
void acceptor_destroy(struct acceptor *acceptor);

/* Where it listens, for people: "tcp:0.0.0.0:7150" with the port that is in use. Valid until destroy. */
const char *acceptor_text(const struct acceptor *acceptor);

/*
 * Waits for a source's control channel, without end when timeout_ms is -1. It begins the session; an earlier one of this
 * acceptor is forgotten. -EPROTONOSUPPORT is not returned but logged: another caller may be the right one.
 */
int acceptor_control(struct acceptor *acceptor, int timeout_ms, struct channel **ret, struct err *err);

/*
 * Waits until `count` channels of the kind have joined the session and hands them out, in the order of their index, into
 * channels[count]: all or none. -ETIMEDOUT after ACCEPTOR_JOIN_MS; -EINTR when the control channel has something to
 * say meanwhile (which is still to be received), and what channel_check says when it is lost.
 */
int acceptor_join(struct acceptor *acceptor, struct channel *control, enum wire_kind kind, uint32_t count,
		  struct channel **channels, struct err *err);
