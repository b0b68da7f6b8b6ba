/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VFIO_DEVICE_FEATURE (<linux/vfio.h>): what a device can beside the basics, asked for and set through its descriptor.
 * vfio/device.h has the same by device.
 */
#pragma once

#include "iommu/vfio_sys.h"

/*
 * op is VFIO_DEVICE_FEATURE_GET, _SET or _PROBE (with GET or SET); data of len bytes (at most 64) goes in and comes
 * back. What the ioctl returns, or -errno; -ENOTTY: the device does not have the feature.
 */
int vfio_feature(const struct vfio_sys *sys, int fd, uint32_t op, uint32_t feature, void *data, size_t len);
