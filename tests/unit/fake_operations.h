/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All operations of a machine without the machine, for what stands in front of them: the tests of the control socket and
 * its fuzzer. Names in a request decide how an operation ends (see the .c).
 */
#pragma once

#include "vmm/machine/operations.h"

/* What was asked of the machine, and what it is to do. All on the event loop's thread, or while that is idle. */
struct asked {
	int paused, stopped, forced;
	uint64_t balloon;
	unsigned int fds; /* that came with the last request which may have some */

	/* A pause waits for its answer, which whoever set this gives: one at a time. */
	bool pause_waits;
	void (*pause_done)(void *opaque, int code, const struct err *err);
	void *pause_opaque;

	/* The client that leaves while its restore is looked at, or -1; what is seen of it before and after. */
	int asker;
	bool asker_was_there, asker_left;
};
extern struct asked asked;

extern const struct operations fake_operations;
