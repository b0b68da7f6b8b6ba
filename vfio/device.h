/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host device that has been opened and attached through a container: descriptor, basic information, the IOMMU behind
 * it, and how its writes to memory are followed. What is in it (regions, interrupts, config space) is built on top.
 */
#pragma once

#include "iommu/host_iommu_device.h"
#include "vfio/host.h"
#include "vfio/space.h"
#include "vfio/vfio_uapi.h"

/* Who can tell which pages the device wrote, worst first. */
enum vfio_coverage {
	VFIO_COVERAGE_NONE,   /* nobody: all memory counts as dirty */
	VFIO_COVERAGE_TYPE1,  /* the legacy container's log */
	VFIO_COVERAGE_HWPT,   /* the IOMMU's page table */
	VFIO_COVERAGE_DEVICE, /* the device's own DMA log */
};

enum vfio_want { VFIO_WANT_AUTO, VFIO_WANT_IOMMUFD, VFIO_WANT_LEGACY, VFIO_WANT_NOIOMMU };

struct vfio_device_options {
	const char *device; /* PCI address, UUID or sysfs path; may be NULL when fd is given */
	int *fd; /* the opened /dev/vfio/devices/vfioN, iommufd only; taken over, also on failure. NULL: open it */
	enum vfio_want backend; /* AUTO: iommufd where kernel and device have it, else legacy */
	const uint8_t *vf_token; /* 16 bytes, or NULL */
	bool no_device_log;      /* follow its writes by the IOMMU even if it could log them itself */
};

/* The ranges that a device's log was started with; reports ask for these and no others. */
#define VFIO_MAX_LOG_RANGES 2

struct vfio_dma_log {
	bool supported;
	bool on;
	uint64_t page_size; /* the granularity that the device chose */
	size_t range_count;
	struct vfio_device_feature_dma_logging_range ranges[VFIO_MAX_LOG_RANGES];
};

struct vfio_device {
	struct vfio_space *space;
	const struct vfio_sys *sys;
	const struct log *log;
	struct vfio_host host; /* host.name is the name for messages */
	int fd;
	bool mdev;
	struct host_iommu_device *iommu; /* NULL for a mediated device */
	uint32_t flags;                  /* VFIO_DEVICE_FLAGS_* */
	uint32_t num_regions;
	uint32_t num_irqs;
	const struct vfio_container_ops *backend;
	struct vfio_container *container;
	struct vfio_device *next; /* the space's */
	/* legacy */
	struct vfio_group *group;
	/* iommufd */
	uint32_t devid;
	uint32_t ioas;
	struct vfio_hwpt *hwpt; /* NULL: attached to the IOAS itself */
	/* dirty pages */
	enum vfio_coverage coverage; /* the best there is */
	struct vfio_dma_log dma_log;
	bool tracking;
	bool told_uncovered; /* memory appeared after the log was started, and the log was told so */
	struct dirty_source source;
};

/* Opens, attaches, asks for the information and joins the space's dirty set. On failure nothing is left. */
int vfio_device_open(struct vfio_space *space, const struct vfio_device_options *options, struct vfio_device **ret,
		     struct err *err);
/* Its BARs have been unmapped from the space. What it wrote since the last collect is kept as dirty in guest memory.
 * NULL is fine. */
void vfio_device_close(struct vfio_device *device);

/* The object ids behind a device, for people: 0 where the backend has none. */
uint32_t vfio_device_hwpt_id(const struct vfio_device *device);

/* "none", "type1", "hwpt", "device log". */
const char *vfio_coverage_name(enum vfio_coverage coverage);

/*
 * VFIO_DEVICE_FEATURE: op is VFIO_DEVICE_FEATURE_GET, _SET or _PROBE (with GET or SET); data of len bytes (at most 64)
 * goes in and comes back. What the ioctl returns, or -errno; -ENOTTY: the device does not have the feature.
 */
int vfio_device_feature(const struct vfio_device *device, uint32_t op, uint32_t feature, void *data, size_t len);
