/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host device, opened and attached through a container: its descriptor, its basic information, the IOMMU behind it,
 * and the log of its writes to memory. Its regions, interrupts and config space are built on top.
 */
#pragma once

#include "vfio/container.h"
#include "vfio/feature.h"
#include "vfio/space.h"
#include "vfio/vfio_uapi.h"

struct vfio_device_options {
	const char *device; /* PCI address, UUID or sysfs path; may be NULL when fd is given */
	int *fd; /* the opened /dev/vfio/devices/vfioN, iommufd only; taken over, also on failure. NULL: open it */
	struct vfio_given *given; /* who found and opened it; its files are taken. NULL: this process finds and opens it */
	enum vfio_want backend; /* AUTO: iommufd if kernel and device support it, else legacy */
	const uint8_t *vf_token; /* 16 bytes, or NULL */
	bool no_device_log;      /* use the IOMMU's dirty log even if the device has one */
	bool no_p2p; /* other devices do not reach its BARs, nor it theirs */
};

/* Opens and attaches the device, reads its information and joins the best dirty log. On failure nothing is left. */
int vfio_device_open(struct vfio_space *space, const struct vfio_device_options *options, struct vfio_device **ret,
		     struct err *err);
/* Its BARs have been unmapped from the space. Pages that it wrote since the last collect stay dirty. NULL is fine. */
void vfio_device_close(struct vfio_device *device);

/* Resets it (VFIO_DEVICE_RESET): 0 or -errno. Other devices reach its BARs again afterwards. */
int vfio_device_reset(const struct vfio_device *device);

struct vfio_device_ids vfio_device_ids(const struct vfio_device *device);

/* What reports the pages that it writes. */
enum vfio_coverage vfio_device_coverage(const struct vfio_device *device);

/* vfio_dirty_logs_untracked(), by device. */
uint64_t vfio_device_untracked(struct vfio_space *space, const struct vfio_device **who);

/* vfio_feature() of this device. */
static inline int vfio_device_feature(const struct vfio_device *device, uint32_t op, uint32_t feature, void *data,
				      size_t len)
{
	return vfio_feature(device->sys, device->fd, op, feature, data, len);
}
