/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An io_uring of one thread that can do only what it is for: what it submits is not seen by the thread's filter of
 * system calls. It is made on a thread that may (thread_call), restricted while it is disabled (io_uring_register(2),
 * IORING_REGISTER_RESTRICTIONS), and enabled by the thread that uses it.
 */
#pragma once

#include <liburing.h>

#include "core/util.h"

struct ring_rules {
	const uint8_t *ops; /* IORING_OP_*: those that can be submitted */
	size_t op_count;
	const int *files; /* that operations are on; NULL: any descriptor */
	size_t file_count;
	bool replaced; /* the files can be replaced by others */
};

/*
 * Makes a disabled ring. *fixed: the operations name the files by their place in rules->files, with IOSQE_FIXED_FILE,
 * as the restrictions then demand; false: this kernel has no such table. -errno.
 */
int ring_create(struct io_uring *ring, unsigned int entries, const struct ring_rules *rules, bool *fixed);

/* The error of an invalid set-up: -ENOSYS, -EPERM and -EACCES show that there can be no ring here. */
int ring_probe(void);

/* On the thread that uses it, before anything else. -errno. */
int ring_enable(struct io_uring *ring);
