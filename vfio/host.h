/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sysfs says about a host device before it is opened: its files, its group and its driver; and the messages if it
 * cannot be used. Does not read vendor and class: a VFIO device need not have such files, and its config region has
 * them.
 */
#pragma once

#include "core/err.h"
#include "iommu/vfio_sys.h"

/* The backend that a device is wanted for. */
enum vfio_want { VFIO_WANT_AUTO, VFIO_WANT_IOMMUFD, VFIO_WANT_LEGACY, VFIO_WANT_NOIOMMU };

struct vfio_host {
	char name[64];    /* as the kernel calls it: 0000:01:00.0, or the UUID of a mediated device */
	char path[256];   /* its sysfs directory; "" when only a descriptor is known */
	bool mdev;        /* a mediated device: the IOMMU of the host does not translate for it */
	int group;        /* IOMMU group, or -1 */
	bool noiommu;     /* the group is of VFIO's no-IOMMU mode */
	char driver[64];  /* the host driver that has it, or "" */
	char cdev[64];    /* /dev/vfio/devices/vfioN, or "" if the kernel makes none */
};

/*
 * Finds a device by PCI address (with or without domain), UUID or sysfs path. -ENODEV if it does not exist, -EINVAL if
 * spec is none of these. The caller names spec in the message.
 */
int vfio_host_find(const struct vfio_sys *sys, const char *spec, struct vfio_host *host, struct err *err);

/* -ENODEV unless a VFIO driver has the device and it is in a group; the message says what to type. */
int vfio_host_check_bound(const struct vfio_host *host, struct err *err);

/* The file of its group, by the way in which the host has it. */
void vfio_host_group_path(const struct vfio_host *host, char path[64]);

/* Sets the message for a file of this device, or a common file of VFIO, that does not open; returns rc. */
int vfio_host_open_failed(const struct vfio_host *host, const char *file, int rc, struct err *err);

/* Sets the message for a group with members that a host driver has: names them and what to type; returns -EPERM. */
int vfio_host_not_viable(const struct vfio_sys *sys, const struct vfio_host *host, struct err *err);

/* "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3" of 16 bytes. */
void vfio_uuid_text(const uint8_t uuid[16], char text[37]);
/* 0, or -EINVAL. */
int vfio_uuid_parse(const char *text, uint8_t uuid[16]);
