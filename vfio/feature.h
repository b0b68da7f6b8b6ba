/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VFIO_DEVICE_FEATURE (<linux/vfio.h>): the optional features of a device, through its descriptor.
 * vfio_device_feature() (vfio/device.h) does the same for a device.
 */
#pragma once

#include "iommu/vfio_sys.h"

/*
 * op is VFIO_DEVICE_FEATURE_GET, _SET or _PROBE (with GET or SET); data of len bytes (at most 64) goes in and comes
 * back. Returns what the ioctl returns, or -errno. -ENOTTY: the device does not have the feature.
 */
int vfio_feature(const struct vfio_sys *sys, int fd, uint32_t op, uint32_t feature, void *data, size_t len);
