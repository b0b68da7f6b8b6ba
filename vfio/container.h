/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers: what gives devices an IOMMU page table that shows the guest's memory. One interface, one file a backend
 * (container_legacy.c: groups and type1; container_iommufd.c: IOAS and auto-domains). vfio/space.c decides what is
 * mapped, vfio/device.c what is attached, vfio/tracker.c what is asked for dirty pages; they know a backend by this
 * table alone.
 */
#pragma once

#include "iommu/host_iommu_device.h"
#include "vfio/device.h"
#include "vfio/space.h"

struct vfio_container;

/* A piece of guest RAM to be mapped for devices; page multiples throughout. */
struct vfio_dma {
	uint64_t iova;
	uint64_t size;
	void *host;
	int fd; /* what backs it, or -1 */
	uint64_t fd_offset;
};

struct vfio_container_ops {
	const char *name;
	/* The HostIOMMUDevice that this backend makes for a device that is not mediated. */
	const struct host_iommu_class *iommu;

	/*
	 * Opens the device and attaches it to a container of the space, an existing one if it fits, else a new one with
	 * all RAM mapped; realizes device->iommu on the way. Sets fd, container and what the backend keeps. On failure
	 * nothing is left of it.
	 */
	int (*attach)(struct vfio_device *device, const struct vfio_device_options *options, struct err *err);
	/* Detaches and closes the device; a container without devices goes. What fails is logged, and the rest goes on. */
	void (*detach)(struct vfio_device *device);

	/* 0 or -errno, no text: the caller knows what is mapped and why. */
	int (*map)(struct vfio_container *container, const struct vfio_dma *dma);
	/* Everything mapped in the range, which cuts no map. -ENOENT: nothing was. */
	int (*unmap)(struct vfio_container *container, uint64_t iova, uint64_t size);
	/* Shows one device's BAR to the others. -ENOTTY: this kernel cannot. */
	int (*map_bar)(struct vfio_container *container, const struct vfio_bar *bar);

	/* What the IOMMU can log of this device: VFIO_COVERAGE_NONE, _TYPE1 or _HWPT. */
	enum vfio_coverage (*coverage)(const struct vfio_device *device);
	/* Starts or stops the IOMMU's log that serves this device. */
	int (*track)(struct vfio_device *device, bool on);
	/*
	 * Sets the bits of what that log holds for [iova, iova + size), which is mapped throughout and cuts no map; one bit
	 * a 4 KiB page. keep: the log does not forget it.
	 */
	int (*collect)(struct vfio_device *device, uint64_t iova, uint64_t size, unsigned long *bitmap, bool keep);
};

extern const struct vfio_container_ops vfio_container_legacy;
extern const struct vfio_container_ops vfio_container_iommufd;

/* Backends begin their own struct with this. */
struct vfio_container {
	const struct vfio_container_ops *ops;
	struct vfio_space *space;
	struct vfio_container *next;       /* the space's */
	bool noiommu;                      /* nothing is or can be mapped */
	unsigned int devices;
	struct iommufd_uapi_range *ranges; /* what the IOMMUs let be mapped, ascending; own */
	size_t range_count;
	uint64_t map_limit;                /* maps that fit beside those there are; 0: no limit known */
};

/* Takes the ranges over (freed by vfio_container_done). */
void vfio_container_set_ranges(struct vfio_container *container, struct iommufd_uapi_range *ranges, size_t count);

/* The descriptor of a legacy group that the space has open, or -1. */
int vfio_legacy_group_fd(const struct vfio_space *space, int group);
