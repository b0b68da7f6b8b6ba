/* SPDX-License-Identifier: Apache-2.0 */
/* See host_iommu_device.h. */
#include "iommu/host_iommu_device.h"

#include <stdio.h>

struct host_iommu_device *host_iommu_device_create(const struct host_iommu_class *class)
{
	struct host_iommu_device *hiod = calloc(1, sizeof(*hiod));

	if (hiod)
		hiod->class = class;
	return hiod;
}

void host_iommu_device_destroy(struct host_iommu_device *hiod)
{
	free(hiod);
}

int host_iommu_device_realize(struct host_iommu_device *hiod, const struct host_iommu_source *source)
{
	struct host_iommu_device realized = {.class = hiod->class};
	int rc = hiod->class->realize(&realized, source);

	if (rc < 0)
		return rc;
	*hiod = realized;
	return 0;
}

static int host_iommu_device_realize_iommufd(struct host_iommu_device *hiod, const struct host_iommu_source *source)
{
	static const enum host_iommu_type types[] = {
		[IOMMUFD_UAPI_HW_TYPE_NONE] = HOST_IOMMU_NONE,
		[IOMMUFD_UAPI_HW_TYPE_VTD] = HOST_IOMMU_VTD,
		[IOMMUFD_UAPI_HW_TYPE_SMMUV3] = HOST_IOMMU_SMMUV3,
		[3] = HOST_IOMMU_OTHER,
		[IOMMUFD_UAPI_HW_TYPE_AMD] = HOST_IOMMU_AMD,
	};
	uint32_t type;
	int rc = iommufd_get_hw_info(source->iommufd, source->devid, &hiod->registers, sizeof(hiod->registers), &type,
				     &hiod->capabilities);

	if (rc < 0)
		return rc;
	hiod->type = type < ARRAY_SIZE(types) ? types[type] : HOST_IOMMU_OTHER;
	return 0;
}

/* Reads up to two hexadecimal numbers, "a" or "a:b", from a file beside the device; returns how many there were. */
static int host_iommu_device_read_hex(const struct host_iommu_source *source, const char *name, uint64_t value[2])
{
	char path[512], text[64], *end;

	if (!source->sysfs)
		return 0;
	snprintf(path, sizeof(path), "%s/iommu/%s", source->sysfs, name);
	if (source->sys->ops->read_file(source->sys, path, text, sizeof(text)) < 0)
		return 0;
	value[0] = strtoull(text, &end, 16);
	if (end == text)
		return 0;
	if (*end != ':')
		return 1;
	value[1] = strtoull(end + 1, NULL, 16);
	return 2;
}

/* The files are the IOMMU drivers' (ABI: sysfs-class-iommu-intel-iommu, -amd-iommu). A missing file is no failure. */
static int host_iommu_device_realize_legacy(struct host_iommu_device *hiod, const struct host_iommu_source *source)
{
	uint64_t cap[2], ecap[2], features[2] = {0, 0};

	if (host_iommu_device_read_hex(source, "intel-iommu/cap", cap) &&
	    host_iommu_device_read_hex(source, "intel-iommu/ecap", ecap)) {
		hiod->type = HOST_IOMMU_VTD;
		hiod->registers.vtd.cap = cap[0];
		hiod->registers.vtd.ecap = ecap[0];
	} else if (host_iommu_device_read_hex(source, "amd-iommu/features", features)) {
		hiod->type = HOST_IOMMU_AMD;
		hiod->registers.amd.efr = features[0];
		hiod->registers.amd.efr2 = features[1];
	}
	return 0;
}

const struct host_iommu_class host_iommu_iommufd = {.realize = host_iommu_device_realize_iommufd};
const struct host_iommu_class host_iommu_legacy = {.realize = host_iommu_device_realize_legacy};

const char *host_iommu_type_name(enum host_iommu_type type)
{
	static const char *const names[] = {
		[HOST_IOMMU_NONE] = "none",
		[HOST_IOMMU_VTD] = "vtd",
		[HOST_IOMMU_SMMUV3] = "smmuv3",
		[HOST_IOMMU_AMD] = "amd",
		[HOST_IOMMU_OTHER] = "other",
	};

	return names[type];
}
