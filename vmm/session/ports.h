/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a serial port or a console leads to: the terminal, a pseudo terminal, a file, a UNIX socket. Opened once for
 * all the machines that one program runs after the other, so a reboot does not hang up on anyone.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "vmm/config/config.h"

struct port;

/* What a port tells its owner, on the loop's thread. */
struct port_events {
	/* A socket's client came or went: use these descriptors from now on (-1: none). */
	void (*changed)(void *opaque, int in_fd, int out_fd);
	/* The person at the terminal asked to leave, or hung up. */
	void (*leave)(void *opaque);
	void *opaque;
};

/*
 * Opens what config says; option ("--serial") names it in messages. The path of a pseudo terminal is logged. PORT_NONE
 * gives a port without descriptors.
 */
int port_open(const struct port_config *config, const char *option, struct event_loop *loop, const struct log *log,
	      const struct port_events *events, struct port **ret, struct err *err);
/* The guest is about to run: a file is begun anew, and stays. Before that nothing in it is lost. */
void port_keep(struct port *port);
/* Closes it and removes the socket that it made, or the file if it was not kept. NULL is fine. */
void port_close(struct port *port);

/* The descriptors now, -1 for none; they stay the port's. */
int port_in(const struct port *port);
int port_out(const struct port *port);
