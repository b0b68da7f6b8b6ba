/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's address space as devices see it: RAM and BARs, mapped into all containers. One for a machine.
 *
 * It listens to guest memory: a new region is prefaulted and mapped before anything uses it; a region that one
 * container refuses is unmapped from the others and refused. All calls come from one thread at a time, the one that
 * changes guest memory and attaches devices, with the lock held if there is one; only dirty pages may be collected by
 * another thread.
 */
#pragma once

#include "vfio/container.h"
#include "vfio/ram.h"

struct vfio_group;

/*
 * Adds a group's or a device's descriptor to the hypervisor (KVM_DEV_VFIO_FILE), before the device is opened or bound,
 * and removes it. All may be NULL.
 */
struct vfio_hypervisor {
	int (*add)(void *opaque, int fd, struct err *err);
	void (*remove)(void *opaque, int fd);
	void *opaque;
};

struct vfio_space_options {
	const struct vfio_sys *sys; /* NULL: the kernel */
	const struct log *log;
	struct guest_memory *memory;
	struct dirty_set *dirty; /* the devices' dirty logs join it; NULL: nothing collects */
	const struct vfio_hypervisor *hypervisor; /* NULL: none */
	pthread_mutex_t *lock; /* recursive; held while any thread collects dirty pages. NULL: none is needed */
	int *iommufd; /* an open /dev/iommu, taken over on success. NULL: opens one */
};

int vfio_space_create(const struct vfio_space_options *options, struct vfio_space **ret, struct err *err);
/* All devices have been closed. NULL is fine. */
void vfio_space_destroy(struct vfio_space *space);

/* Devices may have guest memory mapped: none of it can be given back to the host. */
bool vfio_space_is_mapped(const struct vfio_space *space);

/* Maps a BAR for the other devices (peer to peer) if kernel and IOMMU allow it; logs a refusal. */
void vfio_space_map_bar(struct vfio_space *space, struct vfio_bar *bar);
/* No effect if it is not mapped. */
void vfio_space_unmap_bar(struct vfio_space *space, struct vfio_bar *bar);

/* ---- For container backends and devices. ---- */

struct vfio_space {
	const struct vfio_sys *sys;
	const struct log *log;
	struct guest_memory *memory;
	struct vfio_hypervisor hypervisor;
	int iommufd; /* /dev/iommu, or -1 */
	struct guest_memory_listener listener;
	struct vfio_ram ram;
	struct vfio_dirty_logs logs;
	struct vfio_container *containers;
	struct vfio_device *devices;
	struct vfio_group *groups; /* group.c's */
	struct vfio_bar *bars;
	int bar_refusal; /* the last -errno of a BAR, until it is logged */
	bool warned_bars;
};

/* Adds the device file fd to the hypervisor, and removes it. */
int vfio_space_add_to_hypervisor(struct vfio_space *space, int fd, struct err *err);
void vfio_space_remove_from_hypervisor(struct vfio_space *space, int fd);

/*
 * Begins to prefault the RAM that was never mapped while a device is opened, which takes as long; mapping the RAM waits
 * for it. stop ends what nothing has waited for: both within one vfio_device_open.
 */
int vfio_space_populate_ahead(struct vfio_space *space, struct err *err);
void vfio_space_populate_stop(struct vfio_space *space);

/*
 * Maps all RAM (and BARs, best effort) into a new container whose ranges are known, and adds it to the list. On failure
 * the caller destroys it, which unmaps everything.
 */
int vfio_space_add_container(struct vfio_space *space, struct vfio_container *container, struct err *err);
/* Removes it from the list and frees its ranges; the maps go with the backend's objects. Fine if it was never added. */
void vfio_space_remove_container(struct vfio_space *space, struct vfio_container *container);

/* Takes the ranges over (freed with the container, by vfio_space_remove_container). */
void vfio_container_set_ranges(struct vfio_container *container, struct iommufd_uapi_range *ranges, size_t count);

/* Logs once that devices cannot reach each other, if there are two and a BAR was refused. */
void vfio_space_warn_bars(struct vfio_space *space);
