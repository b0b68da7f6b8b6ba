/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host device that somebody else has found and opened: what he says of it, and descriptors of its files. A command that
 * adds a device to a running machine opens it so, with the rights of who runs it; the machine, which may see neither /sys
 * nor /dev, attaches it (vfio_device_options.given).
 *
 * What he says of it is believed as far as it goes: the kernel knows which device a descriptor is of. He could have given
 * another one.
 */
#pragma once

#include "vfio/host.h"

#define VFIO_GIVEN_FILES 3 /* two of VFIO's, and a ROM */
#define VFIO_GIVEN_ROM "rom"

struct vfio_given {
	const struct vfio_sys *sys; /* by which it was opened; NULL: the kernel */
	struct vfio_host host;
	struct vfio_given_file {
		char path[64]; /* as this process would open it; VFIO_GIVEN_ROM: the file in place of the device's own ROM */
		int fd;        /* -1: it was taken */
	} files[VFIO_GIVEN_FILES];
	size_t count;
};

/*
 * Finds spec and opens what a machine needs to attach it by that backend: /dev/iommu and the device's own file, or the
 * container and the group, which is left out if a machine has it, maybe this one. Errors as vfio_device_open.
 */
int vfio_given_open(const struct vfio_sys *sys, const char *spec, enum vfio_want backend, struct vfio_given *ret,
		    struct err *err);
/* Adds a file; takes the descriptor. -ENOSPC, -ENAMETOOLONG: it is closed. */
int vfio_given_add(struct vfio_given *given, const char *path, int fd);
/* The caller's descriptor of the file. -EBUSY: it was not passed, as one that is in use, or is taken already. */
int vfio_given_take(struct vfio_given *given, const char *path);
/* The same for a device that may not be given: NULL: the file is opened by its path. For the backends. */
int vfio_given_file(struct vfio_given *given, const struct vfio_sys *sys, const char *path);
/* Closes what was not taken. */
void vfio_given_close(struct vfio_given *given);
