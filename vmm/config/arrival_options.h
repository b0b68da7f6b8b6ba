/* SPDX-License-Identifier: Apache-2.0 */
/* What a user says, on this host, about a machine that another process described: mvmm receive, mvmm restore. */
#pragma once

#include "vmm/config/affinity.h"
#include "vmm/config/jail_options.h"
#include "vmm/config/report_options.h"

/* The strings are the caller's. */
struct arrival_options {
	char *name;
	char *kernel, *initrd; /* for a reboot; or NULL */
	/* For machine_config_override; NULL: serial on stdio, a console on a pseudo terminal. */
	char *serial, *console, *vsock;
	char *clock; /* stop or run; NULL: as the machine was configured */
	struct arrival_override {
		char *text; /* "ID=VALUE" */
	} *disks, *nets, *vfios;
	size_t disk_count, net_count, vfio_count;
	struct jail_options jail;
	struct affinity_options affinity;
	unsigned int seccomp; /* an enum seccomp_mode */
	bool force_cpu; /* see machine_config */
	struct report_options report;
	bool verbose, quiet;
};

/* What follows "ID=" in the text that names this id, "" if that is all of it; NULL: none names it. */
const char *arrival_override_find(const struct arrival_override *list, size_t count, const char *id);

/* The text whose id an earlier one has named already; NULL: each id is named once. */
const char *arrival_override_again(const struct arrival_override *list, size_t count);
