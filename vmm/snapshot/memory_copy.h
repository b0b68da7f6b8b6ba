/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a snapshot's memory file into a machine's memory, all of it, and checks its checksums: restore with
 * --memory-mode copy. Memory of any kind can be filled, huge pages too, and the file is not needed afterwards.
 */
#pragma once

#include "core/err.h"
#include "core/log.h"
#include "vmm/snapshot/state_file.h"

struct memory_copy {
	int fd;                     /* of the memory's size; not owned */
	const char *what;           /* its path, for messages */
	struct snapshot_bytes sums; /* snapshot_state's */
	const struct log *log;      /* a line each second, after the first */
	int cancel_fd;              /* readable: -ECANCELED; -1: none */
};

/*
 * The fill of a struct ram_source, whose opaque is a struct memory_copy: fills [host, host + size), which is zero, by
 * several threads. Holes are not read. -EBADMSG: the file is damaged, or its size or the sums' is another.
 */
int memory_copy_fill(void *opaque, void *host, uint64_t size, struct err *err);
