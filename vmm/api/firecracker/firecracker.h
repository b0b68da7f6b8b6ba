/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firecracker's face: its HTTP API, its command line and its forms of log, for clients that speak to Firecracker and are
 * not to notice. mvmm(1), "Instead of Firecracker", lists what is there. Before the start, requests fill in a
 * configuration and open what they name; InstanceStart hands both to operations.start; from then on requests become
 * operations.
 *
 * The command line is read by firecracker_line.c; session_api.c runs the process that the face speaks for.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "vmm/api/firecracker/firecracker_line.h"
#include "vmm/machine/operations.h"

struct firecracker;

/*
 * Opens the log and the socket and serves it on the loop. operated is the machine to come; log is the session's, to which
 * the options and PUT /logger give another file. What is passed in outlives the face.
 */
int firecracker_create(struct event_loop *loop, const struct operated *operated,
		       const struct firecracker_options *options, struct log *log, struct firecracker **ret, struct err *err);
/* Starts the machine of the configuration file, if there is one; -errno: it is not started, and err says why. */
int firecracker_begin(struct firecracker *firecracker, struct err *err);
/* The process ends with this code, after the machine: the last lines of log and metrics. NULL is fine. */
void firecracker_destroy(struct firecracker *firecracker, int code);
