/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's life as `mvmm run` leads it, and `mvmm receive` from the middle on: the name claimed, ports opened, the
 * machine made and run and, after a reboot, made again; signals, the control socket and Ctrl-A x listened to meanwhile;
 * and everything taken down.
 */
#pragma once

#include "vmm/config/config.h"

/*
 * Runs the machine to its end. Returns the program's exit code (exit_code.h); err->text is empty or what is to be
 * shown. EXIT_BAD_INPUT: the guest has not run, and nothing is left behind. config was finished; it follows the devices
 * that come and go.
 */
int session_run(struct machine_config *config, struct err *err);

/* What `mvmm receive` was asked; the strings are the caller's. */
struct receive_options {
	char *from;
	char *name;
	char *tls;
	/* As machine_config_override's; NULL: serial on stdio, a console on a pseudo terminal. */
	char *serial, *console, *vsock;
	struct receive_override {
		char *text; /* "ID=VALUE" */
	} *disks, *nets, *vfios;
	size_t disk_count, net_count, vfio_count;
	bool verbose, quiet;
	bool help;
};

/* Waits for one machine from another host, and leads its life from there on. As session_run; EXIT_FAILED: none arrived. */
int session_receive(const struct receive_options *options, struct err *err);
