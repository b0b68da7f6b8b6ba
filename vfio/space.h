/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's address space as devices see it: RAM and BARs, mapped into all containers. One for a machine.
 *
 * It listens to guest memory: a new region is prefaulted and mapped before anything uses it; a region that one
 * container refuses is unmapped from the others and refused. One thread at a time changes guest memory, opens and
 * closes devices. It takes the lock itself, for moments and not while memory is mapped. Others hold the lock while they
 * map BARs or collect dirty pages.
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
	/*
	 * Devices are about to pin all bytes of guest memory: 0, or why the host has no room for what is not there yet.
	 */
	int (*need_memory)(void *opaque, uint64_t bytes, struct err *err);
	void *opaque;
};

/* How far the device that is being opened has come: what is NULL, or "prefault" or "map" with bytes of guest memory. */
struct vfio_progress {
	const char *what;
	uint64_t done, total;
};

struct vfio_space_options {
	const struct vfio_sys *sys; /* NULL: the kernel */
	const struct log *log;
	struct guest_memory *memory;
	struct dirty_set *dirty; /* the devices' dirty logs join it; NULL: nothing collects */
	const struct vfio_hypervisor *hypervisor; /* NULL: none */
	pthread_mutex_t *lock; /* recursive; held while any thread collects dirty pages. NULL: none is needed */
	const int *cancel_fd;  /* readable: opening a device ends with -ECANCELED; not owned. NULL: none */
	int *iommufd; /* an open /dev/iommu, taken over on success. NULL: opens one */
};

int vfio_space_create(const struct vfio_space_options *options, struct vfio_space **ret, struct err *err);
/* All devices have been closed. NULL is fine. */
void vfio_space_destroy(struct vfio_space *space);

/* Devices may have guest memory mapped: none of it can be given back to the host. */
bool vfio_space_is_mapped(const struct vfio_space *space);

/* Any thread. */
struct vfio_progress vfio_space_progress(const struct vfio_space *space);

/*
 * ---- Peer to peer: BARs that other devices reach ----
 *
 * A BAR is mapped into a container while another device is attached there and neither has no_p2p. A BAR that kernel or
 * IOMMU refuse is not mapped, which is logged once; nothing else depends on it. The kernel revokes the maps of a device
 * that stops decoding for good: they are unmapped before that, and mapped again.
 */
void vfio_space_map_bar(struct vfio_space *space, struct vfio_bar *bar);
/*
 * The end of a part of [gpa, gpa + size) where a container's IOMMU can map no BAR, or 0 if there is none. Any thread.
 */
uint64_t vfio_space_avoid(struct vfio_space *space, uint64_t gpa, uint64_t size);
/* No effect if it is not mapped. */
void vfio_space_unmap_bar(struct vfio_space *space, struct vfio_bar *bar);

/* ---- For container backends and devices. ---- */

struct vfio_space {
	const struct vfio_sys *sys;
	const struct log *log;
	struct guest_memory *memory;
	struct vfio_hypervisor hypervisor;
	pthread_mutex_t *lock; /* of the lists below, which vCPUs and collectors read; or NULL */
	int cancel_fd;         /* or -1 */
	int iommufd;           /* /dev/iommu, or -1 */
	struct vfio_progress progress; /* members are atomic */
	struct guest_memory_listener listener;
	struct vfio_ram ram;
	struct vfio_dirty_logs logs;
	struct vfio_container *containers;
	struct vfio_device *devices;
	struct vfio_group *groups; /* group.c's */
	struct vfio_bar *bars;
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
/* Prefaults what is left of the RAM, before a container in which it is mapped pins it. */
int vfio_space_populate(struct vfio_space *space, struct err *err);

/*
 * For -ENOMEM of a call that pins memory: sets the message, and is true, if the limit of locked memory may be the
 * reason.
 */
bool vfio_space_explain_limit(const struct vfio_space *space, const struct vfio_container *container, struct err *err);

/*
 * Maps all RAM into a new container whose ranges are known, and adds it to the list. On failure
 * the caller destroys it, which unmaps everything.
 */
int vfio_space_add_container(struct vfio_space *space, struct vfio_container *container, struct err *err);
/* Removes it from the list and frees its ranges; the maps go with the backend's objects. Fine if it was never added. */
void vfio_space_remove_container(struct vfio_space *space, struct vfio_container *container);

/* The space's lock, if it has one. */
void vfio_space_lock(struct vfio_space *space);
void vfio_space_unlock(struct vfio_space *space);

/* Takes the ranges over (freed with the container, by vfio_space_remove_container). */
void vfio_container_set_ranges(struct vfio_container *container, struct iommufd_uapi_range *ranges, size_t count);

/* A device has joined the space's devices, or leaves them next. With the lock held, as for the next four. */
void vfio_space_add_peer(struct vfio_space *space, const struct vfio_device *device);
void vfio_space_remove_peer(struct vfio_space *space, const struct vfio_device *device);
/* All BARs in one container, and those of one device in all. */
void vfio_space_unmap_bars_in(struct vfio_space *space, struct vfio_container *container);
void vfio_space_map_bars_in(struct vfio_space *space, struct vfio_container *container);
void vfio_space_unmap_bars_of(struct vfio_space *space, const struct vfio_device *device);
void vfio_space_map_bars_of(struct vfio_space *space, const struct vfio_device *device);
