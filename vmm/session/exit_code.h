/* SPDX-License-Identifier: Apache-2.0 */
/* The program's exit codes; the man page has the same list. */
#pragma once

enum exit_code {
	EXIT_OFF = 0,       /* success; for run: the guest powered off, or the machine was ended on request */
	EXIT_FAILED = 1,    /* something failed while the machine ran, or the command failed */
	EXIT_BAD_INPUT = 2, /* nothing was started */
	EXIT_PANIC = 3,     /* the guest's kernel panicked */
	EXIT_SIGNAL = 128,  /* plus the number of the signal that ended it */
};
