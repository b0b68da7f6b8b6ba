/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of a PCI function of the host: lists the functions, binds them to VFIO, unbinds them. All through sysfs
 * (Documentation/ABI/testing/sysfs-bus-pci: driver_override, unbind, drivers_probe). Keeps no state: after an unbind
 * the kernel chooses the driver.
 */
#pragma once

#include "vfio/host.h"

/* What can be done with a function. */
enum vfio_fitness {
	VFIO_FIT_READY,      /* can be passed through now */
	VFIO_FIT_BOUND_ELSE, /* a host driver has it, or none: bind it */
	VFIO_FIT_SHARED,     /* a host driver has others of its group: bind the group */
	VFIO_FIT_IN_USE,     /* a process has its group open */
	VFIO_FIT_BRIDGE,     /* cannot be passed through */
	VFIO_FIT_NO_IOMMU,   /* no IOMMU on this host, or it is off */
};

struct vfio_function {
	struct vfio_host host;
	uint16_t vendor, device;
	uint32_t class_code;
	enum vfio_fitness fitness;
	unsigned int vfs, total_vfs; /* SR-IOV: virtual functions enabled, possible; 0 without SR-IOV */
	char parent[64];             /* the physical function of a virtual one, or "" */
};

/* Calls fn for every PCI function of the host, in order of address. -errno when sysfs cannot be read. */
int vfio_binding_each(const struct vfio_sys *sys, void (*fn)(void *opaque, const struct vfio_function *function),
		      void *opaque, struct err *err);

/* Calls fn with the name of every mediated device. */
int vfio_binding_each_mdev(const struct vfio_sys *sys, void (*fn)(void *opaque, const char *name), void *opaque,
			   struct err *err);

/*
 * Binds the function (with group: each of its IOMMU group except bridges) to a VFIO driver: to this one, '-' and '_'
 * being the same; NULL: to the one that the kernel's modules name for it (variant.h), unless any VFIO driver has it. If
 * one member fails, those before it are bound as they were. changed is called for each change of driver, also when it
 * is undone. -ENODEV: the driver is not loaded; -EBUSY: the function is in use by another VFIO driver.
 */
typedef void vfio_binding_fn(void *opaque, const char *name, const char *driver);
int vfio_binding_bind(const struct vfio_sys *sys, const char *spec, bool group, const char *driver,
		      vfio_binding_fn *changed, void *opaque, struct err *err);

/* Unbinds the function (the group) from VFIO and lets the kernel choose a driver. */
int vfio_binding_unbind(const struct vfio_sys *sys, const char *spec, bool group, vfio_binding_fn *changed,
			void *opaque, struct err *err);
