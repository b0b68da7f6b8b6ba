/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a machine in `mvmm run`, and in `mvmm receive` once it has arrived: claim the name, open the ports, make
 * and run the machine, make a new one after a reboot, meanwhile serve signals, control socket and Ctrl-A x.
 */
#pragma once

#include "vmm/config/arrival_options.h"
#include "vmm/config/config.h"

/*
 * Runs the machine to its end. Returns the program's exit code (exit_code.h); err->text is empty or has the message to
 * show. EXIT_BAD_INPUT: the guest has not run, and nothing is left behind. config must be finished; devices that are
 * added or removed change it.
 */
int session_run(struct machine_config *config, struct err *err);

/*
 * `mvmm api`: serves an HTTP API and runs the machine that a client starts. Returns the exit code that the API's clients
 * know.
 */
struct firecracker_options;
int session_api(const struct firecracker_options *options, struct err *err);

/* The options of `mvmm receive`. */
struct receive_options {
	char *from;
	char *tls, *tls_peer;
	char *disk_dir; /* the source may name disks in it; or NULL */
	struct arrival_options here;
	bool insecure; /* a network address without TLS is accepted */
	bool help;
};

/* Receives one machine and runs it. As session_run; EXIT_FAILED: no machine arrived. */
int session_receive(struct receive_options *options, struct err *err);

/* The options of `mvmm restore`. */
struct restore_options {
	char *from;          /* the folder */
	char *state, *memory; /* or its two files; memory NULL: whoever serves it has it */
	struct arrival_options here;
	char *memory_mode; /* map, copy, prefetch or uffd=SOCKET; NULL: map */
	struct arrival_override *changed; /* ids of disks that may have changed */
	size_t changed_count;
	uint64_t record_ns; /* mvmm snapshot record: how long to wait for the guest's first byte; 0: no recording */
	struct arrival_override *sources; /* "ID=FILE": the copy of a disk, instead of the one in the folder */
	size_t source_count;
	int ready_fd; /* gets a line when the guest runs: the ns of CLOCK_MONOTONIC; or -1 */
	bool any_disk; /* all of them may have changed */
	bool paused; /* it stays paused after the restore */
	bool wait;   /* the process is prepared, and becomes the machine when a request says what differs */
	char *spare; /* the process that waits and gets the request; then this one restores nothing itself */
	bool help;
};

/* Makes a machine from a snapshot and runs it. As session_run; EXIT_BAD_INPUT: the guest has not run. */
int session_restore(struct restore_options *options, struct err *err);
