/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of the kernel's iommufd interface that is used here, under names of our own, so that a build needs no
 * particular version of <linux/iommufd.h> and may include that file as well. Numbers and layouts are those of
 * Linux 6.6 to 7.2; a command that an older kernel does not know answers ENOTTY.
 *
 * Every structure starts with its own size; the kernel takes a shorter one than it knows, and a longer one whose
 * surplus is zero. Fields not named here must be zero.
 */
#pragma once

#include "core/util.h"

#include <linux/ioctl.h>

#define IOMMUFD_UAPI_IO(nr) _IO(';', nr)

/* Frees an object by id. EBUSY while something uses it. */
struct iommufd_uapi_destroy {
	uint32_t size;
	uint32_t id;
};
#define IOMMUFD_UAPI_DESTROY IOMMUFD_UAPI_IO(0x80)

struct iommufd_uapi_ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id; /* out */
};
#define IOMMUFD_UAPI_IOAS_ALLOC IOMMUFD_UAPI_IO(0x81)

struct iommufd_uapi_range {
	uint64_t start;
	uint64_t last; /* inclusive */
};

/* What can be mapped now; changes as devices are attached and detached. EMSGSIZE: count says how many there are. */
struct iommufd_uapi_iova_ranges {
	uint32_t size;
	uint32_t ioas_id;
	uint32_t count; /* in: room; out: ranges there are */
	uint32_t reserved;
	uint64_t ranges; /* pointer to struct iommufd_uapi_range */
	uint64_t alignment; /* out */
};
#define IOMMUFD_UAPI_IOVA_RANGES IOMMUFD_UAPI_IO(0x84)

#define IOMMUFD_UAPI_MAP_FIXED (1u << 0)
#define IOMMUFD_UAPI_MAP_WRITE (1u << 1)
#define IOMMUFD_UAPI_MAP_READ (1u << 2)

struct iommufd_uapi_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va;
	uint64_t length;
	uint64_t iova;
};
#define IOMMUFD_UAPI_MAP IOMMUFD_UAPI_IO(0x85)

/* Superset of whole earlier maps; ENOENT when it cuts one or finds none. iova 0 with length 2^64 - 1 is everything. */
struct iommufd_uapi_unmap {
	uint32_t size;
	uint32_t ioas_id;
	uint64_t iova;
	uint64_t length; /* out: bytes unmapped */
};
#define IOMMUFD_UAPI_UNMAP IOMMUFD_UAPI_IO(0x86)

#define IOMMUFD_UAPI_HWPT_DIRTY_TRACKING (1u << 1)
#define IOMMUFD_UAPI_HWPT_DATA_NONE 0u

/* A page table for an IOAS in the format of a device's IOMMU. The trailing fault queue of later kernels is not used. */
struct iommufd_uapi_hwpt_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t pt_id;   /* the IOAS */
	uint32_t hwpt_id; /* out */
	uint32_t reserved;
	uint32_t data_type;
	uint32_t data_len;
	uint64_t data;
};
#define IOMMUFD_UAPI_HWPT_ALLOC IOMMUFD_UAPI_IO(0x89)

#define IOMMUFD_UAPI_HW_TYPE_NONE 0u
#define IOMMUFD_UAPI_HW_TYPE_VTD 1u
#define IOMMUFD_UAPI_HW_TYPE_SMMUV3 2u
#define IOMMUFD_UAPI_HW_TYPE_AMD 4u
#define IOMMUFD_UAPI_HW_CAP_DIRTY_TRACKING (1ull << 0)

struct iommufd_uapi_hw_info {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t data_len; /* in: room; out: what the kernel has */
	uint64_t data;
	uint32_t type; /* out */
	uint32_t reserved;
	uint64_t capabilities; /* out */
};
#define IOMMUFD_UAPI_GET_HW_INFO IOMMUFD_UAPI_IO(0x8a)

/* What data receives, by type. */
struct iommufd_uapi_hw_vtd {
	uint32_t flags;
	uint32_t reserved;
	uint64_t cap;  /* VT-d specification 11.4.2 */
	uint64_t ecap; /* 11.4.3 */
};

struct iommufd_uapi_hw_smmuv3 {
	uint32_t flags;
	uint32_t reserved;
	uint32_t idr[6];
	uint32_t iidr;
	uint32_t aidr;
};

struct iommufd_uapi_hw_amd {
	uint64_t efr;
	uint64_t efr2;
};

#define IOMMUFD_UAPI_DIRTY_ENABLE 1u

/* Enabling starts from a clean log. */
struct iommufd_uapi_set_dirty {
	uint32_t size;
	uint32_t flags;
	uint32_t hwpt_id;
	uint32_t reserved;
};
#define IOMMUFD_UAPI_SET_DIRTY IOMMUFD_UAPI_IO(0x8b)

/* Only sets bits. The range must be mapped throughout: some kernels answer 0 at a hole and drop what follows it. */
struct iommufd_uapi_get_dirty {
	uint32_t size;
	uint32_t hwpt_id;
	uint32_t flags;
	uint32_t reserved;
	uint64_t iova;
	uint64_t length;
	uint64_t page_size;
	uint64_t data; /* pointer to the bitmap */
};
#define IOMMUFD_UAPI_GET_DIRTY IOMMUFD_UAPI_IO(0x8c)

/* Linux 6.14; memfd, hugetlb or shared memory, or a dma-buf (7.0). */
struct iommufd_uapi_map_file {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	int32_t fd;
	uint64_t start;
	uint64_t length;
	uint64_t iova;
};
#define IOMMUFD_UAPI_MAP_FILE IOMMUFD_UAPI_IO(0x8f)
