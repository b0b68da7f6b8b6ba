/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty sources: each reports which guest pages were written since its last report. KVM's log, this process's own
 * writes, a device's DMA log, an IOMMU page table and a type1 container are one source each. The migration loop learns
 * about dirty pages only from them.
 *
 * A source only sets bits, so all sources of a range share one bitmap that was zeroed once. Bit n of a bitmap is the
 * 4 KiB page at gpa + n * 4096.
 */
#pragma once

#include "core/err.h"

struct dirty_source;

struct dirty_source_ops {
	/*
	 * Begins tracking: a later collect reports all writes after start returned. The first collect of a page may
	 * report it although it was not written: KVM begins with all pages dirty, to avoid a walk through all of them.
	 * A caller that sends all memory in the first round therefore collects each part right before it sends it.
	 */
	int (*start)(struct dirty_source *source, struct err *err);
	/* Ends tracking and frees what start allocated. No effect if start was never called. */
	void (*stop)(struct dirty_source *source);
	/*
	 * Sets the bits of the pages in [gpa, gpa + size) written since start or the last collect of that page. gpa and
	 * size are page multiples; bitmap has size / 4096 bits rounded up to whole longs. On failure bits may be lost:
	 * the caller must treat the whole range as dirty or give up.
	 */
	int (*collect)(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap,
		       struct err *err);
};

/* Embedded in its owner. */
struct dirty_source {
	const char *name;
	const struct dirty_source_ops *ops;
	bool halts; /* it cannot report its writes, so it stands still while it is tracked */
	struct dirty_source *next; /* dirty_set's */
};

/* Learns what the callers of dirty_set_collect are told, for somebody who keeps account over a longer time. */
struct dirty_observer {
	/* The pages whose bits are set were reported, in addition to earlier ones. bitmap NULL: all of the range. */
	void (*saw)(struct dirty_observer *observer, uint64_t gpa, uint64_t size, const unsigned long *bitmap);
};

/* The sources of one machine. All zero: empty. */
struct dirty_set {
	struct dirty_source *first;
	struct dirty_observer *observer; /* NULL: none; set by its owner, which also starts the set. Not owned */
	unsigned int users;              /* calls of start without a stop */
	/*
	 * Set by the caller of collect while a last collect will follow, when nothing writes any more. Until then a
	 * source that does not know what was written reports nothing, instead of everything in each round.
	 */
	bool rounds_follow;
};

/* A source added to a started set is started; if that fails, it is not added. */
int dirty_set_add(struct dirty_set *set, struct dirty_source *source, struct err *err);

/* A source removed from a started set is stopped. A caller that needs its bits collects them before. */
void dirty_set_remove(struct dirty_set *set, struct dirty_source *source);

/*
 * Starts all or none. There may be several users: the sources run from the first start until the last stop. Each sees
 * all writes since its own start, but what one collects is not reported to another again; the observer sees it.
 */
int dirty_set_start(struct dirty_set *set, struct err *err);
/* No effect if nobody has started it. */
void dirty_set_stop(struct dirty_set *set);

/* ORs what all sources report of the range into bitmap. One thread at a time. */
int dirty_set_collect(struct dirty_set *set, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err);
