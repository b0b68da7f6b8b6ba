/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty logs: what reports the pages that devices wrote. There is one for each HWPT, one for each type1 container, one
 * for each device's own DMA log, and one, "nobody", for devices that nothing tracks. The log, not the device, is a
 * dirty source of the machine: devices that use the same log share its start, its stop and each query.
 *
 * A log joins the machine's dirty set with its first user and leaves it with its last one; a set that has been started
 * starts it at once. Pages about which a log is not exact count as dirty, while rounds follow (core/dirty.h) only in
 * the last one. If a log cannot be read, collect fails, and its caller takes the range for dirty or gives up.
 *
 * All calls come with the space's lock held, if there is one, except vfio_dirty_logs_untracked and those of the dirty
 * set, which take it.
 */
#pragma once

#include "core/dirty.h"
#include "core/log.h"
#include "vfio/ram.h"

#include <pthread.h>

/* What reports the pages that a device wrote, worst first. */
enum vfio_coverage {
	VFIO_COVERAGE_NONE,   /* nothing: all memory counts as dirty */
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
	/* Starts it with a clean log, or stops it. */
	int (*track)(struct vfio_dirty_log *log, bool on);
	/*
	 * Whether it reports single pages at gpa; reduces *size to the bytes from there for which the answer holds.
	 * NULL: it does for all that is mapped.
	 */
	bool (*exact)(const struct vfio_dirty_log *log, uint64_t gpa, uint64_t *size);
	/*
	 * Sets the bits of the pages written in [iova, iova + size), which is mapped throughout, and clears them in the
	 * log; one bit a 4 KiB page.
	 */
	int (*query)(struct vfio_dirty_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap);
};

/* A device that uses a log; embedded in it. */
struct vfio_dirty_log_user {
	const char *name; /* for messages */
	struct vfio_dirty_log *log;
	struct vfio_dirty_log_user *next;
};

/* Embedded in the owner of the log. */
struct vfio_dirty_log {
	struct dirty_source source; /* named as its first user */
	const struct vfio_dirty_log_ops *ops;
	struct vfio_dirty_logs *logs;
	struct vfio_dirty_log_user *users;
	struct vfio_dirty_log *next; /* of the logs in use */
	bool started;
	bool warned_added; /* a warning about memory added after the start was logged */
};

/* The logs of one address space. */
struct vfio_dirty_logs {
	const struct vfio_ram *ram;
	struct guest_memory *memory;
	struct dirty_set *set; /* or NULL: nothing collects */
	pthread_mutex_t *lock; /* recursive, or NULL */
	const struct log *log;
	struct vfio_dirty_log nobody;
	struct vfio_dirty_log *used; /* those with users, oldest first */
};

/* The caller has filled in the other fields. */
void vfio_dirty_logs_init(struct vfio_dirty_logs *logs);

void vfio_dirty_log_init(struct vfio_dirty_log *log, struct vfio_dirty_logs *logs,
			 const struct vfio_dirty_log_ops *ops);

/* For a device, named in user, that is attached and writes nothing yet. */
int vfio_dirty_log_join(struct vfio_dirty_log *log, struct vfio_dirty_log_user *user, struct err *err);
/* Before the device is detached. Pages that the last user wrote since the last collect stay dirty in guest memory. */
void vfio_dirty_log_leave(struct vfio_dirty_log_user *user);

/*
 * The bytes of memory that count as dirty in the last collect whatever devices do: all memory for a device that nothing
 * tracks, and what was added after the start of a device's own log. *who is such a device, or NULL.
 */
uint64_t vfio_dirty_logs_untracked(struct vfio_dirty_logs *logs, const struct vfio_dirty_log_user **who);
