/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers: what gives devices an IOMMU page table that shows the guest's memory. One interface, one file a backend
 * (container_legacy.c: groups and type1; container_iommufd.c: IOAS and auto-domains; container_noiommu.c: groups
 * without an IOMMU). vfio/space.c decides what is mapped, vfio/device.c what is attached; they know a backend by this
 * table alone, and what a backend knows of a device or a container is its own.
 */
#pragma once

#include "iommu/host_iommu_device.h"
#include "vfio/dma_log.h"
#include "vfio/host.h"

struct vfio_container_ops;
struct vfio_space;

/* A host device; vfio/device.h has what can be done with one. */
struct vfio_device {
	struct vfio_space *space;
	const struct vfio_sys *sys;
	const struct log *log;
	struct vfio_host host; /* host.name is the name for messages */
	int fd;
	bool mdev;
	const uint8_t *vf_token;         /* 16 bytes or NULL, while it is opened */
	struct host_iommu_device *iommu; /* NULL for a mediated device, and where there is no IOMMU */
	uint32_t flags;                  /* VFIO_DEVICE_FLAGS_* */
	uint32_t num_regions;
	uint32_t num_irqs;
	const struct vfio_container_ops *backend;
	void *attachment; /* the backend's */
	struct vfio_container *container;
	struct vfio_device *next; /* the space's */
	struct vfio_dirty_log_user dirty;
	struct vfio_dma_log dma_log; /* unless it has none, or is to do without */
	const char *reset; /* how it was: "function", "bus" or "none"; NULL: not yet (pci_reset.h) */
	bool at_work;      /* the guest may use it */
};

/* The object ids behind a device, for people: 0 where the backend has none. */
struct vfio_device_ids {
	uint32_t devid, ioas, hwpt;
};

/* Backends begin their own struct with this. */
struct vfio_container {
	const struct vfio_container_ops *ops;
	struct vfio_space *space;
	struct vfio_container *next;       /* the space's */
	unsigned int devices;
	struct iommufd_uapi_range *ranges; /* what the IOMMUs let be mapped, ascending; own */
	size_t range_count;
	uint64_t map_limit;                /* maps that fit beside those there are; 0: no limit known */
};

/* A piece of guest RAM to be mapped for devices; page multiples throughout. */
struct vfio_dma {
	uint64_t iova;
	uint64_t size;
	void *host;
	int fd; /* what backs it, or -1 */
	uint64_t fd_offset;
};

/* A piece of a device's BAR at a place in the guest. The caller keeps it while it is mapped. */
struct vfio_bar {
	const struct vfio_device *device;
	uint32_t region;
	uint64_t offset; /* in the region */
	uint64_t gpa;
	uint64_t size;
	void *host; /* where it is mapped in this process */
	struct vfio_bar *next; /* the space's */
};

struct vfio_container_ops {
	const char *name;
	bool pins; /* what is mapped is pinned: RAM is brought in before */

	/*
	 * An attach: open, realize, then try with each container of this backend, create when none fits. A step that
	 * fails leaves what the steps before it have made, and close takes that down.
	 */
	/* Opens the device and binds it. NULL where it is opened through its container. */
	int (*open)(struct vfio_device *device, struct err *err);
	/* The HostIOMMUDevice of a device that is not mediated, and what fills it. NULL: none. */
	const struct host_iommu_class *iommu;
	int (*realize)(struct vfio_device *device, struct err *err);
	/* Attaches it to this container, and opens it where that comes last: 0, VFIO_MISFIT, or what ends it. */
	int (*try)(struct vfio_device *device, struct vfio_container *container, struct err *err);
	/* The same with a new container, in which all RAM is mapped then. */
	int (*create)(struct vfio_device *device, struct vfio_container **ret, struct err *err);

	/* Out of its container again. What fails is logged, and the rest goes on. */
	void (*detach)(struct vfio_device *device);
	/* No device is attached to it any more. */
	void (*destroy)(struct vfio_container *container);
	/* The device is detached: all that is left of it goes. Fine before open. */
	void (*close)(struct vfio_device *device);

	/* 0 or -errno, no text: the caller knows what is mapped and why. */
	int (*map)(struct vfio_container *container, const struct vfio_dma *dma);
	/* Everything mapped in the range, which cuts no map. -ENOENT: nothing was. */
	int (*unmap)(struct vfio_container *container, uint64_t iova, uint64_t size);
	/* Shows one device's BAR to the others. -ENOTTY: this kernel cannot. */
	int (*map_bar)(struct vfio_container *container, const struct vfio_bar *bar);

	/* Where the IOMMU logs what an attached device writes, or NULL. The op may be missing, as the next one. */
	struct vfio_dirty_log *(*log)(struct vfio_device *device);
	struct vfio_device_ids (*ids)(const struct vfio_device *device);
	/*
	 * Whether the space holds a device that is reset along with one of its own (VFIO_DEVICE_GET_PCI_HOT_RESET_INFO
	 * names it by its group or, where the answer says so, its id in iommufd), and the descriptor that proves it, or
	 * -1 where the kernel knows.
	 */
	bool (*owns)(const struct vfio_device *device, uint32_t id, int *fd);
};

#define VFIO_MISFIT 1

extern const struct vfio_container_ops vfio_container_legacy;
extern const struct vfio_container_ops vfio_container_iommufd;
extern const struct vfio_container_ops vfio_container_noiommu;
