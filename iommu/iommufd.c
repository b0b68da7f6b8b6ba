/* SPDX-License-Identifier: Apache-2.0 */
/* See iommufd.h. */
#include "iommu/iommufd.h"

#define MAP_FLAGS (IOMMUFD_UAPI_MAP_FIXED | IOMMUFD_UAPI_MAP_WRITE | IOMMUFD_UAPI_MAP_READ)

static int iommufd_call(const struct iommufd *iommufd, unsigned long request, void *arg)
{
	return vfio_sys_ioctl(iommufd->sys, iommufd->fd, request, arg);
}

int iommufd_destroy(const struct iommufd *iommufd, uint32_t id)
{
	struct iommufd_uapi_destroy cmd = {.size = sizeof(cmd), .id = id};

	return iommufd_call(iommufd, IOMMUFD_UAPI_DESTROY, &cmd);
}

int iommufd_ioas_alloc(const struct iommufd *iommufd, uint32_t *ioas)
{
	struct iommufd_uapi_ioas_alloc cmd = {.size = sizeof(cmd)};
	int rc = iommufd_call(iommufd, IOMMUFD_UAPI_IOAS_ALLOC, &cmd);

	if (rc == 0)
		*ioas = cmd.ioas_id;
	return rc;
}

int iommufd_ioas_iova_ranges(const struct iommufd *iommufd, uint32_t ioas, struct iommufd_uapi_range *ranges,
			     uint32_t *count)
{
	struct iommufd_uapi_iova_ranges cmd = {
		.size = sizeof(cmd),
		.ioas_id = ioas,
		.count = *count,
		.ranges = (uintptr_t)ranges,
	};
	int rc = iommufd_call(iommufd, IOMMUFD_UAPI_IOVA_RANGES, &cmd);

	if (rc == 0 || rc == -EMSGSIZE)
		*count = cmd.count;
	return rc;
}

int iommufd_ioas_map(const struct iommufd *iommufd, uint32_t ioas, uint64_t iova, uint64_t size, const void *host)
{
	struct iommufd_uapi_map cmd = {
		.size = sizeof(cmd),
		.flags = MAP_FLAGS,
		.ioas_id = ioas,
		.user_va = (uintptr_t)host,
		.length = size,
		.iova = iova,
	};

	return iommufd_call(iommufd, IOMMUFD_UAPI_MAP, &cmd);
}

int iommufd_ioas_map_file(const struct iommufd *iommufd, uint32_t ioas, uint64_t iova, uint64_t size, int fd,
			  uint64_t start)
{
	struct iommufd_uapi_map_file cmd = {
		.size = sizeof(cmd),
		.flags = MAP_FLAGS,
		.ioas_id = ioas,
		.fd = fd,
		.start = start,
		.length = size,
		.iova = iova,
	};

	return iommufd_call(iommufd, IOMMUFD_UAPI_MAP_FILE, &cmd);
}

int iommufd_ioas_unmap(const struct iommufd *iommufd, uint32_t ioas, uint64_t iova, uint64_t size)
{
	struct iommufd_uapi_unmap cmd = {.size = sizeof(cmd), .ioas_id = ioas, .iova = iova, .length = size};

	return iommufd_call(iommufd, IOMMUFD_UAPI_UNMAP, &cmd);
}

int iommufd_hwpt_alloc(const struct iommufd *iommufd, uint32_t dev, uint32_t ioas, uint32_t flags, uint32_t *hwpt)
{
	struct iommufd_uapi_hwpt_alloc cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.dev_id = dev,
		.pt_id = ioas,
		.data_type = IOMMUFD_UAPI_HWPT_DATA_NONE,
	};
	int rc = iommufd_call(iommufd, IOMMUFD_UAPI_HWPT_ALLOC, &cmd);

	if (rc == 0)
		*hwpt = cmd.hwpt_id;
	return rc;
}

int iommufd_hwpt_set_dirty_tracking(const struct iommufd *iommufd, uint32_t hwpt, bool on)
{
	struct iommufd_uapi_set_dirty cmd = {
		.size = sizeof(cmd),
		.flags = on ? IOMMUFD_UAPI_DIRTY_ENABLE : 0,
		.hwpt_id = hwpt,
	};

	return iommufd_call(iommufd, IOMMUFD_UAPI_SET_DIRTY, &cmd);
}

int iommufd_hwpt_get_dirty_bitmap(const struct iommufd *iommufd, uint32_t hwpt, uint64_t iova, uint64_t size,
				  uint64_t page_size, unsigned long *bitmap)
{
	struct iommufd_uapi_get_dirty cmd = {
		.size = sizeof(cmd),
		.hwpt_id = hwpt,
		.iova = iova,
		.length = size,
		.page_size = page_size,
		.data = (uintptr_t)bitmap,
	};

	return iommufd_call(iommufd, IOMMUFD_UAPI_GET_DIRTY, &cmd);
}

int iommufd_get_hw_info(const struct iommufd *iommufd, uint32_t dev, void *data, uint32_t len, uint32_t *type,
			uint64_t *capabilities)
{
	struct iommufd_uapi_hw_info cmd = {
		.size = sizeof(cmd),
		.dev_id = dev,
		.data_len = len,
		.data = (uintptr_t)data,
	};
	int rc = iommufd_call(iommufd, IOMMUFD_UAPI_GET_HW_INFO, &cmd);

	if (rc == 0) {
		*type = cmd.type;
		*capabilities = cmd.capabilities;
	}
	return rc;
}
