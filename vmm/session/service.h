/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine and the service manager that has started it tell each other, by systemd's protocols: sd_notify(3) (the
 * machine is ready, its status, a sign of life) and sd_listen_fds(3) (sockets to serve). The manager says what it
 * wants in the environment; without that, all of this does nothing.
 *
 * All on the loop's thread. The manager's socket is opened once, before the machine gives up the view of files and
 * networks that it has been started with; later only messages are sent, none of which waits.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"

#define SERVICE_SOCKETS 4u

/* All zero: nobody has started it. */
struct service {
	bool connected;               /* ... to the manager's socket */
	int fd;                       /* that socket */
	uint64_t watchdog_ns;         /* a sign of life is wanted that often; 0: none */
	struct event_source *watchdog, *retry;
	int sockets[SERVICE_SOCKETS]; /* listening UNIX sockets that were handed in, until service_take_socket */
	size_t socket_count;
	bool ready, stopping;
	char status[128];
	char problem[192];            /* what could not be done, until service_watch tells it; "": nothing */
};

/*
 * Reads what the manager wants, opens its socket and takes the sockets that it has handed in; removes all of that from
 * the environment, so that helper programs do not use it. In the process that the manager has started, before a jail is
 * entered. A manager that cannot be reached is no error.
 */
void service_open(struct service *service);
/* Logs what service_open could not do, and makes the timers for the signs of life, which begin with service_ready. */
int service_watch(struct service *service, struct event_loop *loop, const struct log *log, struct err *err);
/* The next socket that was handed in, now the caller's; -1: no more. */
int service_take_socket(struct service *service);
/* The service has started; only the first call tells so. status: what it does now, one line. */
void service_ready(struct service *service, const char *status);
/* What it does now. */
void service_status(struct service *service, const char *status);
/* It is about to end. */
void service_stopping(struct service *service);
void service_close(struct service *service);
