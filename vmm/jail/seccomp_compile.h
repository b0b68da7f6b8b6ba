/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a table become a filter of seccomp(2), a program of classic BPF. Used by the build and by tests. */
#pragma once

#include <linux/filter.h>

#include "vmm/jail/seccomp_table.h"

#define SECCOMP_MOST 1024u /* instructions; the kernel takes 4096 */

struct seccomp_code {
	struct sock_filter insns[SECCOMP_MOST];
	size_t count;
};

/*
 * The filter of threads of kind: another architecture ends the process; a call above last fails with ENOSYS; a row of
 * the table that holds allows it; anything else is trapped. False: the program would be too long.
 */
bool seccomp_compile(const struct seccomp_row *rows, size_t count, enum thread_kind kind, uint32_t last,
		     struct seccomp_code *ret);
