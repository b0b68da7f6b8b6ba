/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: the host memory behind guest-physical addresses.
 *
 * A machine has one struct guest_memory. Users that need its regions (KVM slots, VFIO DMA maps, vhost) register a
 * listener. A listener can refuse a region; then nothing has changed. guest_memory_at() and guest_memory_write() are
 * the only way from a guest address to host memory. Data that the guest controls is copied once; the copy is checked.
 *
 * A lookup takes no lock; any thread. Regions and listeners are added and removed by one thread at a time; a region is
 * removed only while no thread of the machine runs.
 */
#pragma once

#include "core/dirty.h"
#include "core/err.h"

#define GUEST_PAGE_SIZE 4096ull

struct guest_memory;

/*
 * What a private region's pages are before this process has written them, if not zeros: the bytes of a file that is
 * mapped privately, or whatever is brought in from elsewhere when a page is touched (userfaultfd). An absent page of
 * such a region is not zero; migration/zero.h answers what it is, guest_discard.h gives pages back.
 */
struct guest_file {
	int fd;              /* not owned; -1: no file, the contents come from elsewhere */
	uint64_t offset;     /* of the region's start in fd */
	unsigned long *gone; /* pages of the region that were given back, and are anonymous memory now; atomic; NULL:
			      * none. Freed by whoever made the region */
	unsigned int most;   /* mappings of this process from which no more are made for such pages; 0: 32768 */
	unsigned int given;  /* guest_discard.c's: calls that may have made some */
	bool crowded;        /* guest_discard.c's: there were too many when they were last counted */
};

struct guest_region {
	uint64_t gpa;       /* guest-physical start, page aligned */
	uint64_t size;      /* bytes, a page multiple */
	void *host;         /* start in this process; mapped readable and writable while the region exists */
	int fd;             /* its file, mapped shared; -1: private anonymous memory; not owned */
	uint64_t fd_offset; /* offset of gpa in fd */
	uint64_t page_size; /* of the host's pages behind it; 0: GUEST_PAGE_SIZE */
	struct guest_file *base; /* what is below private memory; NULL: nothing, untouched pages are zero; not owned */
};

struct guest_memory_listener;

struct guest_memory_listener_ops {
	/* A region is added. -errno (err set) refuses it; the listener has undone its own changes by then. */
	int (*add)(struct guest_memory_listener *listener, const struct guest_region *region, struct err *err);
	/* A region that add accepted is removed. */
	void (*remove)(struct guest_memory_listener *listener, const struct guest_region *region);
};

/* Embedded in its owner. */
struct guest_memory_listener {
	const struct guest_memory_listener_ops *ops;
	struct guest_memory_listener *next; /* guest_memory's */
};

/* Empty; NULL: out of memory. destroy(NULL) is fine; no listener is registered any more. */
struct guest_memory *guest_memory_create(void);
void guest_memory_destroy(struct guest_memory *memory);

/*
 * Calls the listeners' add in the order of their registration, then adds the region. If one refuses, those before it
 * get a remove. -EINVAL: the region is misaligned or overlaps another; -ENOSPC: more than 64 regions.
 */
int guest_memory_add(struct guest_memory *memory, const struct guest_region *region, struct err *err);

/* Removes the region that starts at gpa; calls the listeners in reverse order. -ENOENT: there is none. */
int guest_memory_remove(struct guest_memory *memory, uint64_t gpa, struct err *err);

/* Registers a listener and calls its add for each region; if it refuses one, it is not registered. */
int guest_memory_listen(struct guest_memory *memory, struct guest_memory_listener *listener, struct err *err);

/* Calls the listener's remove for each region and unregisters it. */
void guest_memory_unlisten(struct guest_memory *memory, struct guest_memory_listener *listener);

/* The regions in ascending order. Valid until the next add or remove. */
const struct guest_region *guest_memory_regions(const struct guest_memory *memory, size_t *count);

/* The total size of all regions in bytes. */
uint64_t guest_memory_size(const struct guest_memory *memory);

/*
 * The host pointer to [gpa, gpa + len); NULL if it is not all in one region, or if len is 0. A caller that writes
 * through the pointer calls guest_memory_dirty() after the last byte.
 */
void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t len);

/* The region that contains this host byte, or NULL: the inverse of guest_memory_at(). Valid as above. */
const struct guest_region *guest_memory_region_of(const struct guest_memory *memory, const void *host);

/* Copies buf into guest memory and marks it dirty: 0, or -EFAULT if the range is not all in one region. */
int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *buf, size_t len);

/* Marks [gpa, gpa + len) as written by this process. Cheap without tracking. Any thread. */
void guest_memory_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t len);

/* The dirty source of this process's own writes. Owned by memory. */
struct dirty_source *guest_memory_dirty_source(struct guest_memory *memory);
