/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firecracker's command line. It is not that of mvmm's commands: a value stands apart from its option and may not begin
 * with two dashes, and texts and exit codes are Firecracker's. Read by cli_api.c, for firecracker.c.
 */
#pragma once

#include "vmm/config/config.h"

/* The version of Firecracker whose API this is. */
#define FIRECRACKER_VERSION "1.16.1"
#define FIRECRACKER_SOCKET "/run/firecracker.socket"
#define FIRECRACKER_MAX_ID 64u

struct firecracker_options {
	const char *api_sock;    /* FIRECRACKER_SOCKET */
	const char *id;          /* anonymous-instance */
	const char *config_file; /* or NULL */
	const char *log_path, *level, *module, *metrics_path; /* or NULL */
	bool show_level, show_log_origin;
	bool no_api, enable_pci;
	size_t max_body;
	enum seccomp_mode seccomp;
};

/*
 * Reads the command line, whose words stay. True: the process goes on. False: *code is its exit code; version or help
 * were printed, or err says what is wrong.
 */
bool firecracker_line(int argc, char *const *argv, struct firecracker_options *options, int *code, struct err *err);
