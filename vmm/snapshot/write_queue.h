/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes to places of a file, several at once with io_uring, directly from the caller's memory. The first few MiB are
 * written without it, so that a small file costs no ring and no thread of the kernel; and all of it where the kernel
 * gives no ring.
 *
 * Used by one thread from create to destroy. memory_file.c uses it.
 */
#pragma once

#include "core/err.h"

struct write_queue;

struct write_queue_options {
	int fd; /* not owned */
	/* Called before each wait and about ten times a second during one; nonzero ends the call. */
	int (*check)(void *opaque, struct err *err);
	void *opaque;
};

int write_queue_create(const struct write_queue_options *options, struct write_queue **ret, struct err *err);
/* Writes in flight may end later; the file is then no use. NULL is fine. */
void write_queue_destroy(struct write_queue *queue);

/*
 * Writes len bytes at offset, after some time: data must stay, and may change until write_queue_drain has returned.
 * Writes of one place must not be in flight together. The first failure is the result of this and of every later call.
 */
int write_queue_add(struct write_queue *queue, const void *data, size_t len, uint64_t offset, struct err *err);

/* Waits until all has been written. */
int write_queue_drain(struct write_queue *queue, struct err *err);
