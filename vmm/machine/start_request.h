/* SPDX-License-Identifier: Apache-2.0 */
/* The request of operations.start: what a machine is, and the files that were opened for it by whoever asks. */
#pragma once

#include "vmm/config/config.h"
#include "vmm/machine/machine_files.h"

struct start_request {
	struct machine_config config; /* finished */
	struct machine_files files;
};

/* The defaults, no files. */
void start_request_init(struct start_request *request);
/* Frees what is left in it. */
void start_request_done(struct start_request *request);
