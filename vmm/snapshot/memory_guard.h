/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guards memory that is a private mapping of a file, or that is brought in by somebody else. Such memory may go away
 * under a running machine: the file is truncated, its storage fails, the process that provides it dies. Then the machine
 * ends with one line of log and an exit status. It does not read zeros, spin in page faults or crash without a word.
 *
 * Three ways lead here. The event loop watches the file (inotify, size, time of the last write). KVM_RUN fails with
 * EFAULT, or the guest has an inexplicable fault (memory_guard_ask). A thread of this process reads the memory and gets
 * SIGBUS: it cannot go on, so the line is written by the signal's handler, and the process ends in that of the loop's thread.
 *
 * At most one guard exists in a process, since a signal has one handler.
 */
#pragma once

#include "core/event_loop.h"
#include "core/guest_memory.h"
#include "core/log.h"

struct memory_guard;

struct memory_guard_options {
	int fd;           /* the mapped file; not owned, outlives the guard; -1: none is watched */
	const char *what; /* for messages: the path of the file, or what the memory comes from; copied */
	struct event_loop *loop;
	const struct log *log;
	/*
	 * The memory is lost: the machine must end as failed. The line has been logged. Called once, on any thread.
	 */
	void (*lost)(void *opaque);
	/*
	 * SIGBUS ends the process, and only async-signal-safe functions may be called: for what must not be left behind.
	 * On the loop's thread, unless that does not answer within a second. NULL: nothing.
	 */
	void (*dying)(void *opaque);
	void *opaque;
	int exit_code;        /* of the process, when SIGBUS ends it */
	unsigned int look_ms; /* when the file is first looked at; 0: a second */
};

/* Records what the file is now, before it is mapped. */
int memory_guard_create(const struct memory_guard_options *options, struct memory_guard **ret, struct err *err);
/* Not while a thread uses the memory. NULL is fine. */
void memory_guard_destroy(struct memory_guard *guard);

/*
 * From now on, a SIGBUS in one of the regions ends the process, and the file is watched. The first look comes late: a
 * watch costs the end of a machine 10 to 20 ms, which short-lived ones do not have. On the loop's thread.
 */
int memory_guard_start(struct memory_guard *guard, const struct guest_memory *memory, struct err *err);

/*
 * Whether the memory is lost; fault: a vCPU got EFAULT, so that it is. If so, it was told, and lost has been called or
 * is about to be. Any thread.
 */
bool memory_guard_ask(struct memory_guard *guard, bool fault);

/* The memory is lost for this reason; the first reason is logged, as a line. Any thread. */
void memory_guard_lose(struct memory_guard *guard, const char *fmt, ...) _printf_(2, 3);
