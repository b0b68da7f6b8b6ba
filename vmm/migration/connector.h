/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the connections of a migration for a machine that has no network: mvmm migrate has one while it waits for the
 * migration's end, so that the connections are made, and encrypted, with the rights of who asked. The machine's side is
 * socket_ask.
 */
#pragma once

#include "vmm/migration/dialer.h"

struct connector;

/* options->to, tls and tls_peer outlive it. *peer: what the machine gets; the caller's. */
int connector_create(const struct dialer_options *options, int *peer, struct connector **ret, struct err *err);
/* Readable when the machine asks. */
int connector_fd(const struct connector *connector);
/* Answers what was asked, if anything; waits for the address for up to DIALER_CONNECT_MS. False: nobody will ask again. */
bool connector_serve(struct connector *connector);
/* Connections that were made stay. NULL is fine. */
void connector_destroy(struct connector *connector);
