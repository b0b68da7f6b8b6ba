/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A region of a VFIO device (VFIO_DEVICE_GET_REGION_INFO): accessed through the device's descriptor; the parts for
 * which the kernel allows it can be mapped into this process.
 */
#pragma once

#include "vfio/device.h"

#define VFIO_REGION_AREAS 32u

/* A part of a region that can be mapped; offset counts from the region's start. Page multiples. */
struct vfio_area {
	uint64_t offset, size;
	void *host; /* where it is mapped, or NULL */
};

struct vfio_region {
	const struct vfio_device *device;
	uint32_t index;
	uint32_t flags;  /* VFIO_REGION_INFO_FLAG_* */
	uint64_t size;   /* bytes; 0: the device has no such region */
	uint64_t offset; /* in the descriptor */
	struct vfio_area areas[VFIO_REGION_AREAS]; /* ascending, disjoint */
	size_t area_count;
};

/* Asks the kernel. A region that the device does not have has size 0. -ENOMEM, -EIO. */
int vfio_region_get(const struct vfio_device *device, uint32_t index, struct vfio_region *ret, struct err *err);

/* Excludes the pages of [offset, offset + size) from the areas. Before vfio_region_map. */
void vfio_region_exclude(struct vfio_region *region, uint64_t offset, uint64_t size);

/*
 * Maps the areas, aligned as their offsets are so that huge pages can back large ones. Accesses to an area that cannot
 * be mapped are trapped.
 */
void vfio_region_map(struct vfio_region *region);
/* Unmaps what was mapped. Fine on a zeroed region. */
void vfio_region_unmap(struct vfio_region *region);

/* Access through the descriptor, [offset, offset + len) inside the region: 0 or -errno. */
int vfio_region_read(const struct vfio_region *region, uint64_t offset, void *data, size_t len);
int vfio_region_write(const struct vfio_region *region, uint64_t offset, const void *data, size_t len);
