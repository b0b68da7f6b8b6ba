/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of host_devices.h share; only they include it. */
#pragma once

#include "vmm/machine/host_devices.h"

/* A device that is being added: a worker opens it, the loop puts it on the bus. */
struct arrival {
	struct host_devices *devices;
	const struct vfio_config *config;
	struct vfio_given *given; /* or NULL */
	int devfn;
	struct host_devices_reply reply;
	struct event_source *timer; /* of progress */
	struct vfio_device *device; /* the worker's, until it has ended */
	int code; /* and err: why it does not come */
	struct err err;
};

/* One device. When it leaves, the loop takes it off the bus, and a worker closes it. */
struct host_device {
	struct host_devices *devices;
	char *id;
	struct vfio_pci *pci;
	struct slot *slot;
	struct vfio_device *closing; /* once it is off the bus */
	struct host_device *next;
};

struct host_devices {
	struct host_devices_machine machine;
	struct vfio_space *space; /* made with the first device */
	pthread_mutex_t space_lock;
	int iommufd;      /* handed in, for the space; or -1 */
	struct host_device *first;
	struct arrival *arrival;
	unsigned int leaving; /* off the bus, and not in the list any more */
	int cancel_fd; /* eventfd: an arrival shall end */
	bool ending;   /* the machine ends */
	bool balloon_logged;
};

/* ---- host_devices_remove.c ---- */

/* How they leave their slots. */
extern const struct slot_ops host_device_ops;
/* vfio_pci_machine's wanted. */
void host_devices_remove_on_wanted(void *opaque, struct vfio_pci *pci);
void host_devices_remove_free(struct host_device *device);
/* The machine ends. */
void host_devices_remove_all(struct host_devices *devices);
