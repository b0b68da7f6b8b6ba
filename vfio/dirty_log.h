/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty logs: whoever can tell which pages devices wrote. There is one for each HWPT, one for each type1 container, one
 * for each device's own DMA log, and one, "nobody", for the devices of which nobody can tell. The log is the dirty
 * source of the machine, not the device: devices use one, and those that share it share its start, its stop and each
 * query.
 *
 * A log joins the machine's dirty set with its first user and leaves it with its last one; in a set that has been
 * started it is started at once. What a log is not exact about counts as written; while rounds follow (core/dirty.h)
 * not before the last one. A log that cannot be read is lost: collect fails, and its caller takes the range for dirty
 * or gives up.
 *
 * All calls come with the space's lock held, where there is one, but vfio_dirty_logs_untold and those of the dirty set,
 * which take it.
 */
#pragma once

#include "core/dirty.h"
#include "core/log.h"
#include "vfio/ram.h"

#include <pthread.h>

/* Who can tell which pages a device wrote, worst first. */
enum vfio_coverage {
	VFIO_COVERAGE_NONE,   /* nobody: all memory counts as dirty */
	VFIO_COVERAGE_TYPE1,  /* the legacy container's log */
	VFIO_COVERAGE_HWPT,   /* the IOMMU's page table */
	VFIO_COVERAGE_DEVICE, /* the device's own DMA log */
};

/* "none", "type1", "hwpt", "device log". */
const char *vfio_coverage_name(enum vfio_coverage coverage);

struct vfio_dirty_log;

/* 0 or -errno, no text. */
struct vfio_dirty_log_ops {
	enum vfio_coverage coverage;
	const char *name; /* for "start ..." */
	bool whole;       /* a query must not cut a map */
	/* Starts it anew, or stops it. */
	int (*track)(struct vfio_dirty_log *log, bool on);
	/*
	 * Whether it can tell of single pages at gpa, and for how many of the *size bytes from there on that holds.
	 * NULL: of all that is mapped.
	 */
	bool (*exact)(const struct vfio_dirty_log *log, uint64_t gpa, uint64_t *size);
	/*
	 * Sets the bits of what was written in [iova, iova + size), which is mapped throughout, and forgets it; one bit
	 * a 4 KiB page.
	 */
	int (*query)(struct vfio_dirty_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap);
};

/* A device that uses a log; embedded in it. */
struct vfio_dirty_log_user {
	const char *name; /* for messages */
	struct vfio_dirty_log *log;
	struct vfio_dirty_log_user *next;
};

/* Embedded in what keeps the log. */
struct vfio_dirty_log {
	struct dirty_source source; /* named as its first user */
	const struct vfio_dirty_log_ops *ops;
	struct vfio_dirty_logs *logs;
	struct vfio_dirty_log_user *users;
	struct vfio_dirty_log *next; /* of those in use */
	bool started;
	bool told_added; /* memory appeared after the start, and that was said */
};

/* The logs of one address space. */
struct vfio_dirty_logs {
	const struct vfio_ram *ram;
	struct guest_memory *memory;
	struct dirty_set *set; /* or NULL: nobody will ask */
	pthread_mutex_t *lock; /* recursive, or NULL */
	const struct log *log;
	struct vfio_dirty_log nobody;
	struct vfio_dirty_log *used; /* those with users, in the order of their coming */
};

/* The other fields are filled in. */
void vfio_dirty_logs_init(struct vfio_dirty_logs *logs);

void vfio_dirty_log_init(struct vfio_dirty_log *log, struct vfio_dirty_logs *logs,
			 const struct vfio_dirty_log_ops *ops);

/* The device, named in user, is attached and writes nothing yet. */
int vfio_dirty_log_join(struct vfio_dirty_log *log, struct vfio_dirty_log_user *user, struct err *err);
/* Before the device is detached. What the last user wrote since the last collect is kept as dirty in guest memory. */
void vfio_dirty_log_leave(struct vfio_dirty_log_user *user);

/*
 * How much memory will count as written in a last collect whatever devices do, in bytes: all that is mapped for one
 * that nobody tracks, and what was added after a device's own log had been started. *who is such a device, or NULL.
 */
uint64_t vfio_dirty_logs_untold(struct vfio_dirty_logs *logs, const struct vfio_dirty_log_user **who);
