/* SPDX-License-Identifier: Apache-2.0 */
/* What the program ends with; the man page has the same list. */
#pragma once

enum exit_code {
	EXIT_OFF = 0,       /* done; for run: the guest powered off, or the machine was ended as asked */
	EXIT_FAILED = 1,    /* something failed while it ran */
	EXIT_BAD_INPUT = 2, /* nothing was begun */
	EXIT_PANIC = 3,     /* the guest's kernel panicked */
	EXIT_SIGNAL = 128,  /* and the signal's number: ended by it */
};
