/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iommufd: one function for each ioctl, no policy, no text. The container backend and the host IOMMU object interpret
 * the results. Each returns 0 or the kernel's -errno; out-parameters are written on success unless said otherwise.
 * Contract: <linux/iommufd.h>, as described in iommufd_uapi.h.
 */
#pragma once

#include "iommu/iommufd_uapi.h"
#include "iommu/vfio_sys.h"

/* An open /dev/iommu. Its creator owns fd. */
struct iommufd {
	const struct vfio_sys *sys;
	int fd;
};

int iommufd_destroy(const struct iommufd *iommufd, uint32_t id);

int iommufd_ioas_alloc(const struct iommufd *iommufd, uint32_t *ioas);

/* Up to *count ranges; *count is then how many there are, also on -EMSGSIZE, when they did not fit. */
int iommufd_ioas_iova_ranges(const struct iommufd *iommufd, uint32_t ioas, struct iommufd_uapi_range *ranges,
			     uint32_t *count);

/* Readable and writable by devices, at exactly iova. All three are page multiples. */
int iommufd_ioas_map(const struct iommufd *iommufd, uint32_t ioas, uint64_t iova, uint64_t size, const void *host);
/* The same for bytes of a file; the map outlives the descriptor. -ENOTTY: this kernel cannot. */
int iommufd_ioas_map_file(const struct iommufd *iommufd, uint32_t ioas, uint64_t iova, uint64_t size, int fd,
			  uint64_t start);
int iommufd_ioas_unmap(const struct iommufd *iommufd, uint32_t ioas, uint64_t iova, uint64_t size);

/* flags: IOMMUFD_UAPI_HWPT_*. */
int iommufd_hwpt_alloc(const struct iommufd *iommufd, uint32_t dev, uint32_t ioas, uint32_t flags, uint32_t *hwpt);
int iommufd_hwpt_set_dirty_tracking(const struct iommufd *iommufd, uint32_t hwpt, bool on);
/* Moves the log of a range into bitmap: sets one bit for page_size bytes, clears none. */
int iommufd_hwpt_get_dirty_bitmap(const struct iommufd *iommufd, uint32_t hwpt, uint64_t iova, uint64_t size,
				  uint64_t page_size, unsigned long *bitmap);

/* The IOMMU behind a bound device: its type, its registers (len bytes, zero-filled), IOMMUFD_UAPI_HW_CAP_*. */
int iommufd_get_hw_info(const struct iommufd *iommufd, uint32_t dev, void *data, uint32_t len, uint32_t *type,
			uint64_t *capabilities);
