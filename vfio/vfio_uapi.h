/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's VFIO interface: <linux/vfio.h> as of Linux 6.1, which every build has, plus what came later, under names
 * of our own so that a newer header does not clash. A command or feature that an older kernel does not know answers
 * ENOTTY.
 */
#pragma once

#include "core/util.h"

#include <linux/vfio.h>

#define VFIO_UAPI_BIND_TOKEN (1u << 0) /* Linux 6.17 */

/* Linux 6.6. Ties a device opened through its own file to an iommufd; undone by closing it. */
struct vfio_uapi_bind {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t devid;      /* out */
	uint64_t token;      /* pointer to the 16 bytes of a VF token; only with VFIO_UAPI_BIND_TOKEN */
};
#define VFIO_UAPI_BIND_SIZE_OLD 16u /* without the token */
#define VFIO_UAPI_BIND _IO(VFIO_TYPE, VFIO_BASE + 18)

/* pt_id is an IOAS or a HWPT. EINVAL: the HWPT belongs to another IOMMU. */
struct vfio_uapi_attach {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
};
#define VFIO_UAPI_ATTACH _IO(VFIO_TYPE, VFIO_BASE + 19)

struct vfio_uapi_detach {
	uint32_t argsz;
	uint32_t flags;
};
#define VFIO_UAPI_DETACH _IO(VFIO_TYPE, VFIO_BASE + 20)

/* Linux 6.5, struct vfio_pci_hot_reset_info.flags of a device bound to an iommufd: devices are named by devid instead
 * of group, VFIO_UAPI_DEVID_NOT_OWNED if the caller does not own one; then the reset is refused. */
#define VFIO_UAPI_HOT_RESET_DEV_ID (1u << 0)
#define VFIO_UAPI_HOT_RESET_OWNED (1u << 1)
#define VFIO_UAPI_DEVID_NOT_OWNED UINT32_MAX

/* Linux 6.19: a dma-buf of part of a region; the ioctl returns the descriptor. Follows struct vfio_device_feature. */
#define VFIO_UAPI_FEATURE_DMA_BUF 11u

struct vfio_uapi_dma_buf {
	uint32_t region;
	uint32_t open_flags;
	uint32_t flags;
	uint32_t range_count; /* 1 here */
	uint64_t offset;
	uint64_t length;
};

/* What Linux 6.2 and later add to migration (struct vfio_device_feature_mig_state, enum vfio_device_mig_state). */
#define VFIO_UAPI_MIGRATION_PRE_COPY (1u << 2)
#define VFIO_UAPI_STATE_PRE_COPY 6u
#define VFIO_UAPI_STATE_PRE_COPY_P2P 7u
#define VFIO_UAPI_STATES 8u

/* GET: a 64-bit estimate of the bytes that STOP_COPY would give now. */
#define VFIO_UAPI_FEATURE_MIG_DATA_SIZE 9u
/* Linux 7.1. SET: the flags of struct vfio_uapi_precopy_info are valid. */
#define VFIO_UAPI_FEATURE_PRECOPY_INFO_V2 12u

#define VFIO_UAPI_PRECOPY_REINIT (1u << 0) /* the initial bytes are new ones */

/* On the data descriptor, in the PRE_COPY states. When both are 0, read answers ENOMSG. */
struct vfio_uapi_precopy_info {
	uint32_t argsz;
	uint32_t flags; /* out */
	uint64_t initial_bytes;
	uint64_t dirty_bytes;
};
#define VFIO_UAPI_PRECOPY_INFO _IO(VFIO_TYPE, VFIO_BASE + 21)
