/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iommu/iommufd_uapi.h and vfio/vfio_uapi.h against the kernel's own headers, as far as the build machine has them, and
 * against their published layout where it has not.
 */
#include "iommu/iommufd_uapi.h"
#include "tests/unit/test.h"
#include "vfio/vfio_uapi.h"

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#define HAVE_IOMMUFD_H 1
#endif

#define SAME_FIELD(ours, our_field, theirs, their_field)                                      \
	do {                                                                                  \
		CHECK_EQ(offsetof(struct ours, our_field), offsetof(struct theirs, their_field)); \
		CHECK_EQ(sizeof(((struct ours *)0)->our_field), sizeof(((struct theirs *)0)->their_field)); \
	} while (0)

static void has_the_published_layout(void)
{
	CHECK_EQ(IOMMUFD_UAPI_DESTROY, 0x3b80);
	CHECK_EQ(sizeof(struct iommufd_uapi_destroy), 8);
	CHECK_EQ(sizeof(struct iommufd_uapi_ioas_alloc), 12);
	CHECK_EQ(sizeof(struct iommufd_uapi_iova_ranges), 32);
	CHECK_EQ(sizeof(struct iommufd_uapi_map), 40);
	CHECK_EQ(sizeof(struct iommufd_uapi_map_file), 40);
	CHECK_EQ(sizeof(struct iommufd_uapi_unmap), 24);
	CHECK_EQ(sizeof(struct iommufd_uapi_hwpt_alloc), 40);
	CHECK_EQ(sizeof(struct iommufd_uapi_hw_info), 40);
	CHECK_EQ(sizeof(struct iommufd_uapi_hw_vtd), 24);
	CHECK_EQ(sizeof(struct iommufd_uapi_hw_smmuv3), 40);
	CHECK_EQ(sizeof(struct iommufd_uapi_hw_amd), 16);
	CHECK_EQ(sizeof(struct iommufd_uapi_set_dirty), 16);
	CHECK_EQ(sizeof(struct iommufd_uapi_get_dirty), 48);
	CHECK_EQ(sizeof(struct vfio_uapi_bind), 24);
	CHECK_EQ(offsetof(struct vfio_uapi_bind, token), VFIO_UAPI_BIND_SIZE_OLD);
	CHECK_EQ(sizeof(struct vfio_uapi_attach), 12);
	CHECK_EQ(sizeof(struct vfio_uapi_detach), 8);
	CHECK_EQ(sizeof(struct vfio_uapi_dma_buf), 32);
}

static void agrees_with_iommufd_h(void)
{
#ifdef HAVE_IOMMUFD_H
	CHECK_EQ(IOMMUFD_UAPI_DESTROY, IOMMU_DESTROY);
	CHECK_EQ(IOMMUFD_UAPI_IOAS_ALLOC, IOMMU_IOAS_ALLOC);
	CHECK_EQ(IOMMUFD_UAPI_IOVA_RANGES, IOMMU_IOAS_IOVA_RANGES);
	CHECK_EQ(IOMMUFD_UAPI_MAP, IOMMU_IOAS_MAP);
	CHECK_EQ(IOMMUFD_UAPI_UNMAP, IOMMU_IOAS_UNMAP);
	CHECK_EQ(IOMMUFD_UAPI_HWPT_ALLOC, IOMMU_HWPT_ALLOC);
	CHECK_EQ(IOMMUFD_UAPI_GET_HW_INFO, IOMMU_GET_HW_INFO);
	CHECK_EQ(IOMMUFD_UAPI_SET_DIRTY, IOMMU_HWPT_SET_DIRTY_TRACKING);
	CHECK_EQ(IOMMUFD_UAPI_GET_DIRTY, IOMMU_HWPT_GET_DIRTY_BITMAP);
	CHECK_EQ(IOMMUFD_UAPI_MAP_FIXED, IOMMU_IOAS_MAP_FIXED_IOVA);
	CHECK_EQ(IOMMUFD_UAPI_MAP_WRITE, IOMMU_IOAS_MAP_WRITEABLE);
	CHECK_EQ(IOMMUFD_UAPI_MAP_READ, IOMMU_IOAS_MAP_READABLE);
	CHECK_EQ(IOMMUFD_UAPI_HWPT_DIRTY_TRACKING, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	CHECK_EQ(IOMMUFD_UAPI_HW_CAP_DIRTY_TRACKING, IOMMU_HW_CAP_DIRTY_TRACKING);
	CHECK_EQ(IOMMUFD_UAPI_DIRTY_ENABLE, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
	CHECK_EQ(IOMMUFD_UAPI_HW_TYPE_VTD, IOMMU_HW_INFO_TYPE_INTEL_VTD);
	CHECK_EQ(sizeof(struct iommufd_uapi_map), sizeof(struct iommu_ioas_map));
	SAME_FIELD(iommufd_uapi_map, user_va, iommu_ioas_map, user_va);
	SAME_FIELD(iommufd_uapi_map, iova, iommu_ioas_map, iova);
	SAME_FIELD(iommufd_uapi_unmap, length, iommu_ioas_unmap, length);
	SAME_FIELD(iommufd_uapi_iova_ranges, count, iommu_ioas_iova_ranges, num_iovas);
	SAME_FIELD(iommufd_uapi_iova_ranges, ranges, iommu_ioas_iova_ranges, allowed_iovas);
	SAME_FIELD(iommufd_uapi_hwpt_alloc, dev_id, iommu_hwpt_alloc, dev_id);
	SAME_FIELD(iommufd_uapi_hwpt_alloc, pt_id, iommu_hwpt_alloc, pt_id);
	SAME_FIELD(iommufd_uapi_hwpt_alloc, hwpt_id, iommu_hwpt_alloc, out_hwpt_id);
	SAME_FIELD(iommufd_uapi_hwpt_alloc, data, iommu_hwpt_alloc, data_uptr);
	CHECK_EQ(IOMMUFD_UAPI_HWPT_DATA_NONE, IOMMU_HWPT_DATA_NONE);
	SAME_FIELD(iommufd_uapi_hw_info, type, iommu_hw_info, out_data_type);
	SAME_FIELD(iommufd_uapi_hw_info, capabilities, iommu_hw_info, out_capabilities);
	SAME_FIELD(iommufd_uapi_hw_vtd, ecap, iommu_hw_info_vtd, ecap_reg);
	SAME_FIELD(iommufd_uapi_set_dirty, hwpt_id, iommu_hwpt_set_dirty_tracking, hwpt_id);
	SAME_FIELD(iommufd_uapi_get_dirty, page_size, iommu_hwpt_get_dirty_bitmap, page_size);
	SAME_FIELD(iommufd_uapi_get_dirty, data, iommu_hwpt_get_dirty_bitmap, data);
#endif
#ifdef IOMMU_IOAS_MAP_FILE /* Linux 6.13 has all of these */
	CHECK_EQ(IOMMUFD_UAPI_HW_TYPE_SMMUV3, IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
	SAME_FIELD(iommufd_uapi_hw_smmuv3, aidr, iommu_hw_info_arm_smmuv3, aidr);
	CHECK_EQ(IOMMUFD_UAPI_MAP_FILE, IOMMU_IOAS_MAP_FILE);
	SAME_FIELD(iommufd_uapi_map_file, fd, iommu_ioas_map_file, fd);
	SAME_FIELD(iommufd_uapi_map_file, start, iommu_ioas_map_file, start);
	SAME_FIELD(iommufd_uapi_map_file, iova, iommu_ioas_map_file, iova);
	CHECK_EQ(sizeof(struct iommufd_uapi_hw_amd), 16);
#endif
}

static void agrees_with_vfio_h(void)
{
#ifdef VFIO_DEVICE_BIND_IOMMUFD
	CHECK_EQ(VFIO_UAPI_BIND, VFIO_DEVICE_BIND_IOMMUFD);
	CHECK_EQ(VFIO_UAPI_ATTACH, VFIO_DEVICE_ATTACH_IOMMUFD_PT);
	CHECK_EQ(VFIO_UAPI_DETACH, VFIO_DEVICE_DETACH_IOMMUFD_PT);
	SAME_FIELD(vfio_uapi_bind, iommufd, vfio_device_bind_iommufd, iommufd);
	SAME_FIELD(vfio_uapi_bind, devid, vfio_device_bind_iommufd, out_devid);
	SAME_FIELD(vfio_uapi_attach, pt_id, vfio_device_attach_iommufd_pt, pt_id);
	SAME_FIELD(vfio_uapi_detach, flags, vfio_device_detach_iommufd_pt, flags);
#endif
#ifdef VFIO_DEVICE_BIND_FLAG_TOKEN
	CHECK_EQ(VFIO_UAPI_BIND_TOKEN, VFIO_DEVICE_BIND_FLAG_TOKEN);
	SAME_FIELD(vfio_uapi_bind, token, vfio_device_bind_iommufd, token_uuid_ptr);
#endif
#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
	CHECK_EQ(VFIO_UAPI_FEATURE_DMA_BUF, VFIO_DEVICE_FEATURE_DMA_BUF);
	SAME_FIELD(vfio_uapi_dma_buf, range_count, vfio_device_feature_dma_buf, nr_ranges);
	CHECK_EQ(offsetof(struct vfio_uapi_dma_buf, offset), offsetof(struct vfio_device_feature_dma_buf, dma_ranges));
#endif
	CHECK_EQ(VFIO_DEVICE_FEATURE, _IO(';', 117));
}

TEST_MAIN(TEST(has_the_published_layout), TEST(agrees_with_iommufd_h), TEST(agrees_with_vfio_h))
