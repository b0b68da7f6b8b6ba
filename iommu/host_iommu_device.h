/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HostIOMMUDevice: the properties of the host IOMMU behind one device.
 *
 * Created empty before a device is attached and realized during the attach, when the backend has the data: legacy at
 * the start, from sysfs; iommufd after the bind and before any page table exists, from IOMMU_GET_HW_INFO. A failed
 * attach destroys it. A mediated device has none: no IOMMU of the host translates for it.
 */
#pragma once

#include "core/err.h"
#include "iommu/iommufd.h"

enum host_iommu_type { HOST_IOMMU_NONE, HOST_IOMMU_VTD, HOST_IOMMU_SMMUV3, HOST_IOMMU_AMD, HOST_IOMMU_OTHER };

struct host_iommu_device;

/* Where a backend finds the data. */
struct host_iommu_source {
	const struct vfio_sys *sys;
	const char *sysfs;             /* the device's directory; legacy */
	const struct iommufd *iommufd; /* iommufd */
	uint32_t devid;                /* the bound device's id in it */
};

/* One for each container backend. */
struct host_iommu_class {
	/* Fills type, registers and capabilities. -ENOENT: there is no host IOMMU behind this device (mediated). */
	int (*realize)(struct host_iommu_device *hiod, const struct host_iommu_source *source);
};

extern const struct host_iommu_class host_iommu_legacy;
extern const struct host_iommu_class host_iommu_iommufd;

struct host_iommu_device {
	const struct host_iommu_class *class;
	enum host_iommu_type type;
	uint64_t capabilities; /* IOMMUFD_UAPI_HW_CAP_*; 0 if the backend does not know */
	union {
		struct iommufd_uapi_hw_vtd vtd;
		struct iommufd_uapi_hw_smmuv3 smmuv3;
		struct iommufd_uapi_hw_amd amd;
		uint64_t raw[32];
	} registers; /* by type; zero if unknown */
};

/* NULL: out of memory. destroy(NULL) is fine. */
struct host_iommu_device *host_iommu_device_create(const struct host_iommu_class *class);
void host_iommu_device_destroy(struct host_iommu_device *hiod);

/* At most once. On failure the object stays empty; no text, because -ENOENT is expected for a mediated device. */
int host_iommu_device_realize(struct host_iommu_device *hiod, const struct host_iommu_source *source);

/* "vtd", "smmuv3", ... */
const char *host_iommu_type_name(enum host_iommu_type type);

/* True if the IOMMU can track the pages that a device writes. */
static inline bool host_iommu_tracks_dirty(const struct host_iommu_device *hiod)
{
	return hiod && (hiod->capabilities & IOMMUFD_UAPI_HW_CAP_DIRTY_TRACKING);
}
