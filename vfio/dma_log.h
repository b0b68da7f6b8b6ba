/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's own log of its DMA (VFIO_DEVICE_FEATURE_DMA_LOGGING_*): the dirty log of one device. It is started for the
 * RAM that exists then, in as few ranges as possible, and queried only for these.
 */
#pragma once

#include "vfio/dirty_log.h"
#include "vfio/vfio_uapi.h"

/* Above and below 4 GiB: devices take few ranges. */
#define VFIO_MAX_LOG_RANGES 2

struct vfio_dma_log {
	struct vfio_dirty_log log;
	const struct vfio_sys *sys;
	int fd;
	uint64_t page_size; /* the granularity that the device chose */
	size_t range_count;
	struct vfio_device_feature_dma_logging_range ranges[VFIO_MAX_LOG_RANGES];
};

/* False: the device has no such log. fd is the device's, which outlives the log. */
bool vfio_dma_log_init(struct vfio_dma_log *dma, struct vfio_dirty_logs *logs, const struct vfio_sys *sys, int fd);
