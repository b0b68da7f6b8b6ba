/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session between its files: session.c leads the machine's life, session_operations.c does to it what is asked of it,
 * session_receive.c lets one arrive from another host.
 */
#pragma once

#include "vmm/control/control.h"
#include "vmm/control/rundir.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/session/outgoing.h"
#include "vmm/session/ports.h"

struct session {
	struct machine_config *config;
	struct log log;
	struct event_loop *loop;
	struct rundir *rundir;
	struct port *serial, *console;
	int signal_fd;
	struct event_source *signals;
	struct machine *machine;
	uint64_t started_ns; /* CLOCK_MONOTONIC, when operations were there for it */
	struct operated operated;
	struct control *control;
	bool button_pressed;
	int signal; /* that ended it, or 0 */
	struct machine_offer *offer; /* of the machine that arrived, until its end; or NULL */
	bool arriving;               /* there is a machine, and its guest does not run yet */
	struct outgoing *outgoing;   /* the last migration away, or NULL */
	bool gone;                   /* the guest runs elsewhere */
};

/* ---- session.c; each leaves what it made for session_end ---- */

int session_catch_signals(struct session *session, struct err *err);
int session_open_ports(struct session *session, struct err *err);
int session_make_machine(struct session *session, struct err *err);
/* The guest is about to run: output files begin anew. */
void session_keep_ports(struct session *session);
/* Runs the machine that was started, and those that its reboots make; the program's exit code. */
int session_live(struct session *session, struct err *err);
void session_end(struct session *session);

/* ---- session_operations.c ---- */

/* Presses the power button of a guest that runs; a migration under way is cancelled, lest the guest leaves without
 * hearing it. */
void session_press_button(struct session *session);
int session_open_control(struct session *session, struct err *err);
