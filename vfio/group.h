/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the backends that go through groups have in common (container_legacy.c, container_noiommu.c): a device is
 * reached through its group (/dev/vfio/N), which is opened once, shown to the hypervisor, and in one container
 * (/dev/vfio/vfio). Contract: <linux/vfio.h>.
 *
 * A device's attachment is its group, from the first try or create on; vfio_group_close lets go of it.
 */
#pragma once

#include "vfio/space.h"

struct vfio_group_container;

/* What tells one of these backends from the other. */
struct vfio_group_kind {
	const struct vfio_container_ops *ops;
	unsigned long type; /* VFIO_*_IOMMU */
	const char *name;   /* of the type, for a sentence */
	size_t size;        /* of the backend's struct */
	/* After a group has come in: what can be mapped now. 0 or -errno, no text. NULL: nothing to be asked. */
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
