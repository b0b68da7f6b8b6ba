/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a machine that is restored, by --memory-mode:
 *
 *	map           a private mapping of the memory file; nothing is read that the guest does not touch
 *	prefetch      the same, and what the guest touches first is read ahead (snapshot/prefetch.h)
 *	copy          all of it is read, and checked
 *	uffd=SOCKET   another process brings each page when it is touched (snapshot/memory_uffd.h)
 *
 * and the guard that ends the machine when such memory goes away. All on the loop's thread.
 */
#pragma once

#include "vmm/machine/machine.h"
#include "vmm/machine/memory.h"
#include "vmm/snapshot/snapshot_open.h"

struct restore_memory;

/* -EINVAL: no such mode. *flags: of snapshot_open_as, for this mode. mode NULL: map. */
int restore_memory_check(const char *mode, unsigned int *flags, struct err *err);

struct restore_memory_options {
	const char *mode;
	struct snapshot *snapshot; /* open and locked; outlives it */
	const struct memory_config *config;
	struct event_loop *loop;
	const struct log *log;
	int cancel_fd;             /* readable: the user has no patience with a copy; -1: none */
	void (*lost)(void *opaque); /* the machine must end as failed; its line is logged. Any thread */
	void (*dying)(void *opaque); /* the process ends at once, in a signal's handler (snapshot/memory_guard.h) */
	void *opaque;
};

/* Begins what can be done before the machine is made. */
int restore_memory_create(const struct restore_memory_options *options, struct restore_memory **ret, struct err *err);
const struct ram_source *restore_memory_source(struct restore_memory *memory);
/* The machine has been made, and nobody has touched its memory. */
int restore_memory_start(struct restore_memory *memory, struct guest_memory *ram, struct err *err);
/* Rights have gone: threads that are at work end, and others, which have none, go on. NULL is fine. */
int restore_memory_renew(struct restore_memory *memory, struct err *err);
/* As vcpu_config's memory_lost. Any thread. */
bool restore_memory_is_lost(struct restore_memory *memory, bool fault);
/* The machine has been settled, and is about to be destroyed; NULL is fine. */
void restore_memory_leave(struct restore_memory *memory);
/* It was destroyed; also ends the lock of the snapshot. NULL is fine. */
void restore_memory_destroy(struct restore_memory *memory);
