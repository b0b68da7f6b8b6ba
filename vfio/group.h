/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common part of the backends that use groups (container_legacy.c, container_noiommu.c). A device is opened through
 * its group (/dev/vfio/N). The group is opened once, added to the hypervisor, and in one container (/dev/vfio/vfio).
 * Contract: <linux/vfio.h>.
 *
 * A device's attachment is its group, from the first try or create on; vfio_group_close releases it.
 */
#pragma once

#include "vfio/space.h"

struct vfio_group_container;

/* What differs between these backends. */
struct vfio_group_kind {
	const struct vfio_container_ops *ops;
	unsigned long type; /* VFIO_*_IOMMU */
	const char *name;   /* of the type, for messages */
	size_t size;        /* of the backend's struct */
	/* Reads what can be mapped, after a group has joined. 0 or -errno, no text. NULL: there is nothing to read. */
	int (*read_info)(struct vfio_group_container *c);
};

/* The backends begin their own struct with this. */
struct vfio_group_container {
	struct vfio_container base;
	const struct vfio_group_kind *kind;
	int fd; /* /dev/vfio/vfio */
};

/* A backend's create, by its kind. */
int vfio_group_create_container(struct vfio_device *device, const struct vfio_group_kind *kind,
				struct vfio_container **ret, struct err *err);

/* The backends' operations, see container.h. A group is in one container: its other devices fit no other. */
int vfio_group_try(struct vfio_device *device, struct vfio_container *container, struct err *err);
void vfio_group_detach(struct vfio_device *device);
void vfio_group_destroy(struct vfio_container *container);
void vfio_group_close(struct vfio_device *device);
bool vfio_group_owns(const struct vfio_device *device, uint32_t id, int *fd);
