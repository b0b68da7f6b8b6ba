/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers give devices an IOMMU page table with the guest's memory. One interface, one file for each backend
 * (container_legacy.c: groups and type1; container_iommufd.c: IOAS and auto-domains; container_noiommu.c: groups
 * without an IOMMU). vfio/space.c decides what is mapped, vfio/device.c what is attached; they use a backend through
 * this table alone. What a backend knows about a device or a container is private to it.
 */
#pragma once

#include "iommu/host_iommu_device.h"
#include "vfio/dma_log.h"
#include "vfio/host.h"

struct vfio_container_ops;
struct vfio_given;
struct vfio_space;

/* A host device; vfio/device.h has its functions. */
struct vfio_device {
	struct vfio_space *space;
	const struct vfio_sys *sys;
	const struct log *log;
	struct vfio_host host; /* host.name is the name for messages */
	int fd;
	bool mdev;
	const uint8_t *vf_token;         /* 16 bytes or NULL, while it is opened */
	struct vfio_given *given;        /* its files, while it is opened; NULL: they are opened by their paths */
	struct host_iommu_device *iommu; /* NULL for a mediated device, or without an IOMMU */
	uint32_t flags;                  /* VFIO_DEVICE_FLAGS_* */
	uint32_t num_regions;
	uint32_t num_irqs;
	const struct vfio_container_ops *backend;
	void *attachment; /* the backend's */
	struct vfio_container *container;
	struct vfio_device *next; /* the space's */
	struct vfio_dirty_log_user dirty;
	struct vfio_dma_log dma_log; /* unless it has none or must not use it */
	const char *reset; /* how it was reset: "function", "bus" or "none"; NULL: not yet (pci_reset.h) */
	bool in_use; /* the guest may use it */
	bool no_p2p; /* takes no part in peer-to-peer DMA */
};

/* The ids of a device's kernel objects, for the user: 0 if the backend has none. */
struct vfio_device_ids {
	uint32_t devid, ioas, hwpt;
};

/* Backends begin their own struct with this. */
struct vfio_container {
	const struct vfio_container_ops *ops;
	struct vfio_space *space;
	struct vfio_container *next;       /* the space's */
	unsigned int devices;
	bool pins; /* an IOMMU translates for one of the devices: maps pin memory, so that RAM is prefaulted first */
	struct iommufd_uapi_range *ranges; /* what the IOMMUs can map, ascending; owned */
	size_t range_count;
	uint64_t map_limit;                /* further maps that the kernel allows; 0: no known limit */
};

/* A piece of guest RAM to be mapped for devices; page multiples throughout. */
struct vfio_dma {
	uint64_t iova;
	uint64_t size;
	void *host;
	int fd; /* the file behind it, or -1 */
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
	bool locks_per_user; /* pinned memory counts with all that the user has locked, else with that of the process */

	/*
	 * An attach: open, realize, then try with each container of this backend, create if none fits. If a step fails,
	 * close undoes the steps before it.
	 */
	/* Opens the device and binds it. NULL: it is opened through its container. */
	int (*open)(struct vfio_device *device, struct err *err);
	/* The class of the HostIOMMUDevice of a device that is not mediated, and what fills it in. NULL: none. */
	const struct host_iommu_class *iommu;
	int (*realize)(struct vfio_device *device, struct err *err);
	/* Attaches it to this container, and opens it if that comes last: 0, VFIO_MISFIT, or what ends the attach. */
	int (*try)(struct vfio_device *device, struct vfio_container *container, struct err *err);
	/* The same with a new container, into which all RAM is mapped. */
	int (*create)(struct vfio_device *device, struct vfio_container **ret, struct err *err);

	/* Detaches it from its container. Logs failures and continues. */
	void (*detach)(struct vfio_device *device);
	/* No device is attached to it any more. */
	void (*destroy)(struct vfio_container *container);
	/* Closes a detached device. Fine before open. */
	void (*close)(struct vfio_device *device);

	/* 0 or -errno, no text: the caller knows what is mapped and why. */
	int (*map)(struct vfio_container *container, const struct vfio_dma *dma);
	/* Unmaps everything in the range, which cuts no map. -ENOENT: nothing was mapped. */
	int (*unmap)(struct vfio_container *container, uint64_t iova, uint64_t size);
	/* Maps one device's BAR for the others. -ENOTTY: this kernel cannot. */
	int (*map_bar)(struct vfio_container *container, const struct vfio_bar *bar);

	/* The IOMMU's dirty log for an attached device, or NULL. The op may be NULL, like the next one. */
	struct vfio_dirty_log *(*log)(struct vfio_device *device);
	struct vfio_device_ids (*ids)(const struct vfio_device *device);
	/*
	 * Whether the space has a device that is reset along with one of its own; id is its group or, if
	 * VFIO_DEVICE_GET_PCI_HOT_RESET_INFO says so, its devid in iommufd. *fd is the descriptor that proves it, or -1
	 * if the kernel needs none.
	 */
	bool (*owns)(const struct vfio_device *device, uint32_t id, int *fd);
};

#define VFIO_MISFIT 1

extern const struct vfio_container_ops vfio_container_legacy;
extern const struct vfio_container_ops vfio_container_iommufd;
extern const struct vfio_container_ops vfio_container_noiommu;
