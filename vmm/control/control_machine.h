/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface io.mvmm.Machine: what `mvmm pause`, `resume`, `stop` and `info` call over the control socket. The
 * machine is behind a table of functions, called on the event loop's thread.
 */
#pragma once

#include "vmm/config/config.h"
#include "vmm/control/control.h"
#include "vmm/migration/request.h"

struct control_ops {
	/* Stop and start the guest's CPUs and devices; fine when that is already so. */
	int (*pause)(void *machine, struct err *err);
	int (*resume)(void *machine, struct err *err);
	/* force: the machine ends now. Else the power button is pressed, and it ends when the guest says so. */
	int (*stop)(void *machine, bool force, struct err *err);
	/*
	 * Adds to info: "state" (a word: "running", "paused", "stopping"), "devices" (an array of objects that have at least
	 * "id" and "kind"), and more. name, pid, cpus, memory and uptime are there already.
	 */
	int (*info)(void *machine, json_t *info, struct err *err);
	/* Asks the guest to give bytes of its memory back by its balloon. */
	int (*balloon)(void *machine, uint64_t bytes, struct err *err);
	/* Plugs in a device of the host, written as for --vfio; *id is valid as long as the device is there. */
	int (*add_device)(void *machine, const char *vfio, const char **id, struct err *err);
	/* Takes one out; done answers the call later, unless this fails. */
	int (*remove_device)(void *machine, const char *id, bool force, unsigned int timeout_ms,
			     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err);
	/*
	 * Begins to move the machine to another host; takes request and *fd (-1: none) over. The call is answered when that has
	 * ended, and told how it goes, unless this fails.
	 */
	int (*migrate)(void *machine, struct migration_request *request, int *fd, struct control_call *call, struct err *err);
	/* How that goes, or how the last one ended. */
	json_t *(*migration_status)(void *machine);
	int (*migration_cancel)(void *machine, struct err *err);
	/* The answer was lost that would have told who runs: the guest goes on here, or this machine ends. */
	int (*migration_resolve)(void *machine, bool go_on, struct err *err);
};

struct control_machine {
	const struct machine_config *config;
	const struct control_ops *ops;
	void *machine;
	uint64_t started_ns; /* filled in by control_machine_create; CLOCK_MONOTONIC */
};

/* Serves the interface on listen_fd, which is consumed. machine outlives the server. */
int control_machine_create(struct control_machine *machine, struct event_loop *loop, int *listen_fd,
			   const struct log *log, struct control **ret, struct err *err);
