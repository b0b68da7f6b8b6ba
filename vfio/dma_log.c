/* SPDX-License-Identifier: Apache-2.0 */
/* See dma_log.h. */
#include "vfio/dma_log.h"

#include "vfio/feature.h"

static const struct vfio_dirty_log_ops log_ops;

static struct vfio_dma_log *vfio_dma_log_of(const struct vfio_dirty_log *log)
{
	return container_of(log, struct vfio_dma_log, log);
}

bool vfio_dma_log_init(struct vfio_dma_log *dma, struct vfio_dirty_logs *logs, const struct vfio_sys *sys, int fd)
{
	*dma = (struct vfio_dma_log){.sys = sys, .fd = fd};
	vfio_dirty_log_init(&dma->log, logs, &log_ops);
	return vfio_feature(sys, fd, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET,
			    VFIO_DEVICE_FEATURE_DMA_LOGGING_START, NULL, 0) >= 0;
}

/* The spans of RAM below and above 4 GiB. */
static void vfio_dma_log_choose_ranges(struct vfio_dma_log *dma)
{
	const struct vfio_ram *ram = dma->log.logs->ram;

	dma->range_count = 0;
	for (size_t i = 0; i < ram->count; i++) {
		const struct guest_region *region = &ram->regions[i].region;
		struct vfio_device_feature_dma_logging_range *range = &dma->ranges[dma->range_count];

		if (dma->range_count && (range[-1].iova < GIB(4)) == (region->gpa < GIB(4))) {
			range[-1].length = region->gpa + region->size - range[-1].iova;
			continue;
		}
		range->iova = region->gpa;
		range->length = region->size;
		dma->range_count++;
	}
}

static int vfio_dma_log_start(struct vfio_dma_log *dma)
{
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = GUEST_PAGE_SIZE,
		.ranges = (uintptr_t)dma->ranges,
	};
	int rc;

	vfio_dma_log_choose_ranges(dma);
	control.num_ranges = (uint32_t)dma->range_count;
	rc = vfio_feature(dma->sys, dma->fd, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &control,
			  sizeof(control));
	if (rc >= 0)
		dma->page_size = control.page_size;
	return rc;
}

static int vfio_dma_log_track(struct vfio_dirty_log *log, bool on)
{
	struct vfio_dma_log *dma = vfio_dma_log_of(log);

	return on ? vfio_dma_log_start(dma) :
		    vfio_feature(dma->sys, dma->fd, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL,
				 0);
}

/* Exact for all RAM before the start, which will cover all RAM that exists then. */
static bool vfio_dma_log_exact(const struct vfio_dirty_log *log, uint64_t gpa, uint64_t *size)
{
	const struct vfio_dma_log *dma = vfio_dma_log_of(log);

	for (size_t i = 0; log->started && i < dma->range_count; i++) {
		const struct vfio_device_feature_dma_logging_range *range = &dma->ranges[i];

		if (gpa >= range->iova && gpa - range->iova < range->length) {
			*size = MIN(*size, range->length - (gpa - range->iova));
			return true;
		}
		if (gpa < range->iova)
			*size = MIN(*size, range->iova - gpa);
	}
	return !log->started;
}

static int vfio_dma_log_query(struct vfio_dirty_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap)
{
	const struct vfio_dma_log *dma = vfio_dma_log_of(log);
	struct vfio_device_feature_dma_logging_report report = {
		.iova = iova,
		.length = size,
		.page_size = GUEST_PAGE_SIZE,
		.bitmap = (uintptr_t)bitmap,
	};

	return vfio_feature(dma->sys, dma->fd, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, &report,
			    sizeof(report));
}

static const struct vfio_dirty_log_ops log_ops = {
	.coverage = VFIO_COVERAGE_DEVICE,
	.name = "the device's DMA log",
	.track = vfio_dma_log_track,
	.exact = vfio_dma_log_exact,
	.query = vfio_dma_log_query,
};
