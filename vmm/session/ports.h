/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a serial port or a console is connected to: the terminal, a pseudo terminal, a file, a UNIX socket. It is opened
 * once and serves all machines that the program runs, so a reboot does not disconnect it.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "vmm/config/config.h"

struct port;

/* Events of a port, on the loop's thread. */
struct port_events {
	/* A socket's client connected or left: use these descriptors from now on (-1: none). */
	void (*changed)(void *opaque, int in_fd, int out_fd);
	/* The user at the terminal typed Ctrl-A x, or the terminal hung up. */
	void (*leave)(void *opaque);
	void *opaque;
};

/*
 * Opens what config names; option ("--serial") is its name in messages. The path of a pseudo terminal is logged.
 * PORT_NONE gives a port without descriptors.
 */
int port_open(const struct port_config *config, const char *option, struct event_loop *loop, const struct log *log,
	      const struct port_events *events, struct port **ret, struct err *err);
/* The guest is about to run: a file that was created for it stays at the end. */
void port_keep(struct port *port);
/* Closes it and removes the socket that it created, or its file if it was not kept. NULL is fine. */
void port_close(struct port *port);

/* The current descriptors, -1 for none; owned by the port. */
int port_in(const struct port *port);
int port_out(const struct port *port);
