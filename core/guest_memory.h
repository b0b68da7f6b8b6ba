/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: which host bytes stand behind which guest-physical addresses.
 *
 * A machine has one struct guest_memory. Whoever must know its regions (KVM slots, VFIO DMA maps, vhost) registers a
 * listener; a listener may refuse a region, and then nothing has changed anywhere. Whoever touches guest bytes goes
 * through guest_memory_at() or guest_memory_write(), which are the only way from a guest address to a host pointer. What a
 * guest controls is copied once and checked on the copy.
 *
 * Look-ups take no lock and may come from any thread. Adding, removing and listeners belong to one thread at a time;
 * a region is removed only while nothing of the machine runs.
 */
#pragma once

#include "core/dirty.h"
#include "core/err.h"

#define GUEST_PAGE_SIZE 4096ull

struct guest_memory;

struct guest_region {
	uint64_t gpa;       /* guest-physical start, page aligned */
	uint64_t size;      /* bytes, a page multiple */
	void *host;         /* start in this process; mapped readable and writable for as long as the region lives */
	int fd;             /* what backs it, shared, or -1 for private anonymous memory; not owned */
	uint64_t fd_offset; /* where gpa lies in fd */
};

struct guest_memory_listener;

struct guest_memory_listener_ops {
	/* A region appears. Nonzero (-errno, err set) refuses it; whatever was done for it has been undone by then. */
	int (*add)(struct guest_memory_listener *listener, const struct guest_region *region, struct err *err);
	/* A region that add accepted disappears. */
	void (*remove)(struct guest_memory_listener *listener, const struct guest_region *region);
};

/* Embedded in its owner; lives from register to unregister. */
struct guest_memory_listener {
	const struct guest_memory_listener_ops *ops;
	struct guest_memory_listener *next; /* guest_memory's */
};

/* An empty memory, or NULL when the host has none left. destroy(NULL) is fine; all listeners must have left. */
struct guest_memory *guest_memory_create(void);
void guest_memory_destroy(struct guest_memory *memory);

/*
 * Adds a region after asking every listener in the order of their registration; when one refuses, those before it are
 * told of its removal. -EINVAL when it is misaligned or overlaps another one, -ENOSPC beyond 64 regions.
 */
int guest_memory_add(struct guest_memory *memory, const struct guest_region *region, struct err *err);

/* Removes the region that starts at gpa: listeners hear of it in reverse order. -ENOENT when there is none. */
int guest_memory_remove(struct guest_memory *memory, uint64_t gpa, struct err *err);

/* Registers a listener and shows it every region there is; when it refuses one it is not registered. */
int guest_memory_listen(struct guest_memory *memory, struct guest_memory_listener *listener, struct err *err);

/* Shows the listener the removal of every region and forgets it. */
void guest_memory_unlisten(struct guest_memory *memory, struct guest_memory_listener *listener);

/* The regions in ascending order; *count is set. Valid until the next add or remove. */
const struct guest_region *guest_memory_regions(const struct guest_memory *memory, size_t *count);

/* Bytes in all regions together. */
uint64_t guest_memory_size(const struct guest_memory *memory);

/*
 * The host pointer to [gpa, gpa + len), or NULL when not all of it lies in one region. len 0 gives NULL. Who writes
 * through the pointer says so afterwards with guest_memory_dirty(), after the last byte was written.
 */
void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t len);

/* The region that holds this byte of the process, or NULL: the way back from guest_memory_at(). Valid as above. */
const struct guest_region *guest_memory_region_of(const struct guest_memory *memory, const void *host);

/* Copies into guest memory and marks that dirty: 0, or -EFAULT when the range is not all in one region. */
int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *buf, size_t len);

/* Says that this process has written [gpa, gpa + len). Cheap while nobody tracks. Any thread. */
void guest_memory_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t len);

/* The dirty source of this process's own writes. Owned by memory. */
struct dirty_source *guest_memory_dirty_source(struct guest_memory *memory);
