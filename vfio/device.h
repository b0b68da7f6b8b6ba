/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host device that has been opened and attached through a container: descriptor, basic information, the IOMMU behind
 * it, and how its writes to memory are followed. What is in it (regions, interrupts, config space) is built on top.
 */
#pragma once

#include "vfio/container.h"
#include "vfio/feature.h"
#include "vfio/space.h"
#include "vfio/vfio_uapi.h"

enum vfio_want { VFIO_WANT_AUTO, VFIO_WANT_IOMMUFD, VFIO_WANT_LEGACY, VFIO_WANT_NOIOMMU };

struct vfio_device_options {
	const char *device; /* PCI address, UUID or sysfs path; may be NULL when fd is given */
	int *fd; /* the opened /dev/vfio/devices/vfioN, iommufd only; taken over, also on failure. NULL: open it */
	enum vfio_want backend; /* AUTO: iommufd where kernel and device have it, else legacy */
	const uint8_t *vf_token; /* 16 bytes, or NULL */
	bool no_device_log;      /* follow its writes by the IOMMU even if it could log them itself */
};

/* Opens, attaches, asks for the information and joins the best dirty log there is. On failure nothing is left. */
int vfio_device_open(struct vfio_space *space, const struct vfio_device_options *options, struct vfio_device **ret,
		     struct err *err);
/* Its BARs have been unmapped from the space. What it wrote since the last collect is still dirty. NULL is fine. */
void vfio_device_close(struct vfio_device *device);

struct vfio_device_ids vfio_device_ids(const struct vfio_device *device);

/* Who can tell what it writes: the best there is. */
enum vfio_coverage vfio_device_coverage(const struct vfio_device *device);

/* vfio_dirty_logs_untold(), by device. */
uint64_t vfio_device_untold(struct vfio_space *space, const struct vfio_device **who);

/* vfio_feature() of this device. */
static inline int vfio_device_feature(const struct vfio_device *device, uint32_t op, uint32_t feature, void *data,
				      size_t len)
{
	return vfio_feature(device->sys, device->fd, op, feature, data, len);
}
