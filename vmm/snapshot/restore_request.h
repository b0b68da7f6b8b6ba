/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody asks of a process that waits with a snapshot (mvmm restore --wait): the machine that it becomes. The
 * files that it names were opened by who asks, with his rights.
 */
#pragma once

#include "vmm/config/arrival_options.h"
#include "vmm/migration/wire.h"

#include <jansson.h>

#define RESTORE_MAX_FILES (WIRE_MAX_DISKS + 1) /* all disks, and the folder of who asks */

struct restore_request {
	struct arrival_options here; /* name, ports, vsock, disks, nets; the strings are the request's */
	bool paused;
	struct restore_file {
		char *path; /* as one of the disks names it */
		int fd;
	} files[RESTORE_MAX_FILES];
	size_t file_count;
	bool (*asker_left)(const void *asker); /* whoever asks has gone; not in the parameters */
	const void *asker;
};

/* The parameters of the method Restore; NULL if there is no memory. */
json_t *restore_request_to_json(const struct restore_request *request);

/*
 * NULL, or the name of an invalid parameter. Takes the descriptors, one for each of the `files`: they are closed if it
 * fails, else by restore_request_done.
 */
const char *restore_request_from_json(const json_t *parameters, const int *fds, size_t fd_count,
				      struct restore_request *ret);
/* Frees what from_json has made. */
void restore_request_done(struct restore_request *request);
