/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who drives a PCI function of the host: finding out, giving it to VFIO, giving it back. All by sysfs
 * (Documentation/ABI/testing/sysfs-bus-pci: driver_override, unbind, drivers_probe). No state of our own: a function
 * goes back to the driver that the kernel chooses for it.
 */
#pragma once

#include "vfio/host.h"

/* What can be done with a function. */
enum vfio_fitness {
	VFIO_FIT_READY,      /* can be passed through now */
	VFIO_FIT_BOUND_ELSE, /* a host driver has it, or none: bind it */
	VFIO_FIT_SHARED,     /* others of its group are the host's: bind the group */
	VFIO_FIT_IN_USE,     /* somebody has its group open */
	VFIO_FIT_BRIDGE,     /* never */
	VFIO_FIT_NO_IOMMU,   /* no IOMMU on this host, or it is off */
};

struct vfio_function {
	struct vfio_host host;
	uint16_t vendor, device;
	uint32_t class_code;
	enum vfio_fitness fitness;
	unsigned int vfs, total_vfs; /* SR-IOV: made, possible; 0 where it is none */
	char parent[64];             /* of a virtual function, or "" */
};

/* Calls fn for every PCI function of the host, in order of address. -errno when sysfs cannot be read. */
int vfio_binding_each(const struct vfio_sys *sys, void (*fn)(void *opaque, const struct vfio_function *function),
		      void *opaque, struct err *err);

/* Calls fn with the name of every mediated device. */
int vfio_binding_each_mdev(const struct vfio_sys *sys, void (*fn)(void *opaque, const char *name), void *opaque,
			   struct err *err);

/*
 * Gives the function (with group: all of its IOMMU group but bridges) to vfio-pci. What has it already is left alone.
 * When one member fails, those bound before it go back. told is called for each one that changes
 * hands, on its way back too.
 */
typedef void vfio_binding_told_fn(void *opaque, const char *name, const char *driver);
int vfio_binding_bind(const struct vfio_sys *sys, const char *spec, bool group, vfio_binding_told_fn *told, void *opaque,
		      struct err *err);

/* Takes the function (the group) from VFIO and lets the kernel find it a driver. */
int vfio_binding_unbind(const struct vfio_sys *sys, const char *spec, bool group, vfio_binding_told_fn *told,
			void *opaque, struct err *err);
