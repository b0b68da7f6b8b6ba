/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option --cpu-affinity of all commands that make a machine: on which of the host's CPUs its vCPUs run. It is read
 * from the command line only: on another host, other CPUs are meant.
 */
#pragma once

#include <sched.h>

#include "vmm/config/options.h"

struct affinity_options {
	struct affinity_item {
		char *text; /* "2-7", for all vCPUs; "0-3=8,9", for some */
	} *items;
	size_t count;
};

extern const struct option_key affinity_key;

/* The row of a table of options whose target is a struct `type` with a struct affinity_options `member`. */
#define AFFINITY_OPTION(type, member)                                                                              \
	{"cpu-affinity", "[VCPUS=]CPUS",                                                                           \
	 "run the vCPUs only on these CPUs of the host, as 0-3,8, or 0=2 for one of them; may be repeated",        \
	 &affinity_key, 1, .plain = true, .command_only = true, .offset = offsetof(struct type, member.items),     \
	 .count_offset = offsetof(struct type, member.count), .item_size = sizeof(struct affinity_item)}

/*
 * Checks them for a machine of so many vCPUs on a host of so many CPUs. -EINVAL: the message names the option and what
 * to do.
 */
int affinity_check(const struct affinity_options *options, unsigned int vcpus, unsigned int host_cpus, struct err *err);

/* The host's CPUs for a vCPU, of options that were checked. False: any. */
bool affinity_of(const struct affinity_options *options, unsigned int vcpu, cpu_set_t *ret);
