/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the module know of each other. See iommu.c, device.c, engine.c and migration.c. */
#ifndef SOFTDEV_H
#define SOFTDEV_H

#include <linux/interval_tree.h>
#include <linux/mutex.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "regs.h"

#define SOFTDEV_LOG_RANGES 16

struct softdev_file;

struct softdev {
	struct vfio_device vdev;

	/*
	 * Held around each access to what follows and around each step of the engine: whoever has it sees no DMA in
	 * flight. Taken before all locks of the IOMMU and of VFIO's containers.
	 */
	struct mutex lock;
	bool open;
	u8 config[256];
	u64 regs[SOFTDEV_REGS];
	u8 *store;
	struct eventfd_ctx *msi;
	struct work_struct engine;
	u8 *page;		/* the engine's */

	/* the device's own log of its DMA */
	bool logging;
	bool log_broken;	/* it had no memory for a bit */
	u32 log_range_count;
	struct { unsigned long start, last; } log_ranges[SOFTDEV_LOG_RANGES];
	struct xarray log;	/* page number -> anything */

	/* migration.c */
	enum vfio_device_mig_state state;
	struct softdev_file *saving, *resuming;
	unsigned long *store_dirty;	/* pages of the store to be sent again */
	wait_queue_head_t wait;		/* for something to read */

	/* Knobs in sysfs; the first three are looked at when the device is opened. */
	unsigned int dma_logging;
	unsigned int migration;		/* VFIO_MIGRATION_*; 0: none */
	unsigned long store_size;	/* bytes */
	unsigned int pins;		/* 1: pages that it writes are pinned for a moment */
	unsigned int lose_dirty;	/* every so many marks of a page as dirty, one is lost */
	unsigned int state_rate;	/* KiB of state a second; 0: as fast as can be */
	unsigned int fail_state;	/* the next arc to this state fails, once; 0: none does */
	unsigned int fail_hard;		/* 1: and leaves the device in ERROR */
	unsigned long fail_data;	/* the transfer of state fails after so many bytes, once; 0: it does not */
	unsigned int marks;
};

/* iommu.c */
int softdev_iommu_init(void);
void softdev_iommu_exit(void);
/* The IOMMU instance that a new device stands behind; before it is added. */
struct fwnode_handle *softdev_iommu_fwnode(bool tracking);
/* One access that stays within a page. mark: a write is noted as dirty where the domain tracks. */
int softdev_iommu_access(struct device *dev, u64 iova, void *buf, size_t len, bool write, bool mark);

/* engine.c; lock held by the callers of the first four */
bool softdev_is_running(const struct softdev *sd);
void softdev_kick(struct softdev *sd);
void softdev_bar_write(struct softdev *sd, unsigned int at, const u8 *data, size_t len);
void softdev_log_clear(struct softdev *sd);
void softdev_engine(struct work_struct *work);
void softdev_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length);
extern const struct vfio_log_ops softdev_log_ops;

/* device.c */
extern struct platform_driver softdev_driver;

/* migration.c */
void softdev_set_migration(struct softdev *sd);
void softdev_end_migration(struct softdev *sd);
void softdev_reinit(struct softdev *sd);

#endif
