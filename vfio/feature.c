/* SPDX-License-Identifier: Apache-2.0 */
/* See feature.h. */
#include "vfio/feature.h"

#include "vfio/vfio_uapi.h"

#define MAX_FEATURE 64u

int vfio_feature(const struct vfio_sys *sys, int fd, uint32_t op, uint32_t feature, void *data, size_t len)
{
	_Alignas(8) uint8_t buf[sizeof(struct vfio_device_feature) + MAX_FEATURE] = {0};
	struct vfio_device_feature *arg = (void *)buf;
	int rc;

	if (len > MAX_FEATURE)
		return -E2BIG;
	arg->argsz = (uint32_t)(sizeof(*arg) + len);
	arg->flags = op | feature;
	if (len)
		memcpy(arg->data, data, len);
	rc = vfio_sys_ioctl(sys, fd, VFIO_DEVICE_FEATURE, arg);
	if (rc >= 0 && len)
		memcpy(data, arg->data, len);
	return rc;
}
