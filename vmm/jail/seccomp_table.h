/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of system calls that the threads of a machine may make (seccomp_table_x86.c). A program of the build makes
 * the filters from it (seccomp_compile.h), and tests exercise each row.
 */
#pragma once

#include "core/thread.h"

#define SECCOMP_TESTS 2
#define SECCOMP_OWN_PID 0x7f50f1d0u /* stands for this process, which has no such number: they end at 2^22 */

/*
 * (argument & mask) == value, on the low 32 bits. All arguments that are tested are 32 bits wide in the kernel, but for
 * the flags of clone(2) and the protection of mmap(2) and mprotect(2), of which it uses only low bits. mask 0: no test.
 */
struct seccomp_test {
	uint8_t argument;
	uint32_t mask, value;
};

/* The calls are allowed if all tests of one of their rows hold, on threads of kinds (a bit each). */
struct seccomp_row {
	uint16_t call;
	uint32_t kinds;
	struct seccomp_test tests[SECCOMP_TESTS];
	bool absent;        /* the call fails with ENOSYS, so that the C library takes an older one */
	bool libc;          /* only the C library needs it, and which one differs */
	const char *name, *reason;
};

extern const struct seccomp_row seccomp_table[];
extern const size_t seccomp_table_size;
