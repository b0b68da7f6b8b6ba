/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The noiommu backend: groups of devices without an IOMMU (VFIO's no-IOMMU mode, /dev/vfio/noiommu-N). Nothing is
 * mapped, and such a device can access all memory of the host: it is used only on request (backend=noiommu). Called by
 * vfio/device.c and vfio/space.c through the table at the end.
 */
#include "vfio/group.h"
#include "vfio/vfio_uapi.h"

static int vfio_noiommu_create(struct vfio_device *device, struct vfio_container **ret, struct err *err)
{
	static const struct vfio_group_kind kind = {
		.ops = &vfio_container_noiommu,
		.type = VFIO_NOIOMMU_IOMMU,
		.name = "no-IOMMU mode",
		.size = sizeof(struct vfio_group_container),
	};

	return vfio_group_create_container(device, &kind, ret, err);
}

static int vfio_noiommu_map(struct vfio_container *container, const struct vfio_dma *dma)
{
	return 0;
}

static int vfio_noiommu_unmap(struct vfio_container *container, uint64_t iova, uint64_t size)
{
	return -ENOENT;
}

static int vfio_noiommu_map_bar(struct vfio_container *container, const struct vfio_bar *bar)
{
	return 0;
}

const struct vfio_container_ops vfio_container_noiommu = {
	.name = "noiommu",
	.try = vfio_group_try,
	.create = vfio_noiommu_create,
	.detach = vfio_group_detach,
	.destroy = vfio_group_destroy,
	.close = vfio_group_close,
	.map = vfio_noiommu_map,
	.unmap = vfio_noiommu_unmap,
	.map_bar = vfio_noiommu_map_bar,
	.owns = vfio_group_owns,
};
