/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a machine in `mvmm run`, and in `mvmm receive` once it has arrived: claim the name, open the ports, make
 * and run the machine, make a new one after a reboot, meanwhile serve signals, control socket and Ctrl-A x.
 */
#pragma once

#include "vmm/config/config.h"

/*
 * Runs the machine to its end. Returns the program's exit code (exit_code.h); err->text is empty or has the message to
 * show. EXIT_BAD_INPUT: the guest has not run, and nothing is left behind. config must be finished; devices that are
 * added or removed change it.
 */
int session_run(struct machine_config *config, struct err *err);

/* The options of `mvmm receive`; the strings are the caller's. */
struct receive_options {
	char *from;
	char *name;
	char *tls, *tls_peer;
	char *disk_dir;        /* the source may name disks in it; or NULL */
	char *kernel, *initrd; /* for a reboot; or NULL */
	/* For machine_config_override; NULL: serial on stdio, a console on a pseudo terminal. */
	char *serial, *console, *vsock;
	struct receive_override {
		char *text; /* "ID=VALUE" */
	} *disks, *nets, *vfios;
	size_t disk_count, net_count, vfio_count;
	bool force_cpu; /* see machine_config */
	bool insecure; /* a network address without TLS is accepted */
	bool verbose, quiet;
	bool help;
};

/* Receives one machine and runs it. As session_run; EXIT_FAILED: no machine arrived. */
int session_receive(struct receive_options *options, struct err *err);
