/* SPDX-License-Identifier: Apache-2.0 */
/* The request of operations.start: what a machine is, and the files that were opened for it by whoever asks. */
#pragma once

#include "vmm/config/config.h"
#include "vmm/machine/machine_files.h"

/* A snapshot, and what differs here: as for mvmm restore. */
struct start_snapshot {
	char *state, *memory; /* its two files; state NULL: none; memory NULL: the handler has it */
	char *mode;           /* how memory is read, as for --memory-mode, or NULL */
	char *name, *serial, *vsock, *clock; /* or NULL */
	char *nets[OPTION_MAX_ITEMS];
	size_t net_count;
	bool paused;          /* it stays so */
};

struct start_request {
	struct machine_config config; /* finished; nothing of a snapshot */
	struct machine_files files;
	struct start_snapshot snapshot;
};

/* The defaults, no files. */
void start_request_init(struct start_request *request);
void start_snapshot_done(struct start_snapshot *snapshot);
/* Frees what is left in it. */
void start_request_done(struct start_request *request);
