/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty sources: whatever can tell which guest pages were written since it was last asked. KVM's log, this process's
 * own writes, a device's DMA log, an IOMMU page table and a type1 container are each one source; the migration loop
 * knows nothing else about dirtiness.
 *
 * A source only ever sets bits, so every source of a range shares one bitmap that was zeroed once. Bit n of a bitmap
 * stands for the 4 KiB page at gpa + n * 4096.
 */
#pragma once

#include "core/err.h"

struct dirty_source;

struct dirty_source_ops {
	/*
	 * Begins tracking: everything written from the return of start on is reported by a later collect. The first collect
	 * of a page may report it though it was not written (KVM begins with all pages dirty, which spares it a walk through
	 * them at once): who sends all memory in a first round collects each part right before it is sent.
	 */
	int (*start)(struct dirty_source *source, struct err *err);
	/* Ends tracking and frees what start took. Harmless when start was never called. */
	void (*stop)(struct dirty_source *source);
	/*
	 * Sets the bits of the pages in [gpa, gpa + size) written since start or the last collect of that page; both are
	 * page multiples, bitmap has size / 4096 bits rounded up to whole longs. On failure the caller must take the
	 * whole range for dirty or give up: bits may have been lost.
	 */
	int (*collect)(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err);
};

/* Embedded in its owner. */
struct dirty_source {
	const char *name;
	const struct dirty_source_ops *ops;
	struct dirty_source *next; /* dirty_set's */
};

/* The sources of one machine. Zero-initialised is empty. */
struct dirty_set {
	struct dirty_source *first;
	bool started;
	/*
	 * Set by who asks, while everything will be asked for once more when nothing writes any longer: a source that cannot
	 * tell what was written then keeps quiet until that last time, instead of having all of it sent in each round.
	 */
	bool rounds_follow;
};

/* A source that joins a started set is started at once; when that fails it has not joined. */
int dirty_set_add(struct dirty_set *set, struct dirty_source *source, struct err *err);

/* A source that leaves a started set is stopped. The caller collects from it before, if its bits matter. */
void dirty_set_remove(struct dirty_set *set, struct dirty_source *source);

/* Starts all or none. */
int dirty_set_start(struct dirty_set *set, struct err *err);
void dirty_set_stop(struct dirty_set *set);

/* ORs what all sources report of the range into bitmap. */
int dirty_set_collect(struct dirty_set *set, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err);
