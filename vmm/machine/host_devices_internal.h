/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of host_devices.h share; only they include it. */
#pragma once

#include "vmm/machine/host_devices.h"

#include "core/crew.h"

/* Who has asked to remove the device. Only the loop's thread changes it. */
enum slot_state {
	SLOT_PRESENT, /* nobody */
	SLOT_WANTED,  /* the host */
	SLOT_ASKED,   /* a caller of host_devices_remove, who waits */
	SLOT_BOTH,
	SLOT_GONE,    /* the device was removed, and the slot is freed */
};

/* A device that is being added: a worker opens it, the loop puts it on the bus. */
struct arrival {
	struct host_devices *devices;
	const struct vfio_config *config;
	int devfn;
	struct host_devices_reply reply;
	struct crew *crew;
	struct event_source *timer; /* of progress */
	struct vfio_device *device; /* the worker's, until it has ended */
	int code; /* and err: why it does not come */
	struct err err;
};

/* A caller of host_devices_remove, who waits. */
struct remover {
	host_devices_done_fn *done;
	void *opaque;
};

/* One device. When it leaves, the loop takes it off the bus, and a worker closes it. */
struct slot {
	struct host_devices *devices;
	char *id;
	unsigned int device; /* its number on the bus */
	struct vfio_pci *pci;
	enum slot_state state;
	unsigned int wants; /* how often the host has asked */
	struct event_source *timer; /* of the caller who waits for the guest */
	struct remover asked, forced;
	/* once it is off the bus */
	struct crew *crew;           /* NULL if the loop had to close it */
	struct vfio_device *closing; /* the worker's, until it has ended */
	struct slot *next;
};

struct host_devices {
	struct host_devices_machine machine;
	struct vfio_space *space; /* made with the first device */
	pthread_mutex_t space_lock;
	int iommufd;      /* handed in, for the space; or -1 */
	uint32_t ejected; /* bit d: the guest has ejected device d; set by vCPUs, cleared by the loop */
	struct event_source *eject;
	int eject_fd;
	struct slot *slots;
	/* One worker at a time, for one of these; the other is NULL. */
	struct arrival *arrival;
	struct slot *leaving; /* off the bus, and not in slots any more */
	struct event_source *worked;
	int worked_fd; /* eventfd: the worker has ended */
	int cancel_fd; /* eventfd: an arrival shall end */
	const char *blocker; /* why devices cannot be added or removed now, or NULL */
	bool balloon_logged;
};

/* ---- host_devices_remove.c ---- */

/* NULL: there is none with this id. */
struct slot *host_devices_remove_find(const struct host_devices *devices, const char *id);
void host_devices_remove_free(struct slot *slot);
/* The guest has ejected a device: on a vCPU's thread, and then on the loop's. */
void host_devices_remove_ejected(void *opaque, unsigned int device);
void host_devices_remove_on_eject(void *opaque, uint32_t events);
/* The next device in this slot has not been ejected. */
void host_devices_remove_forget(struct host_devices *devices, unsigned int device);
/* vfio_pci_machine's wanted. */
void host_devices_remove_on_wanted(void *opaque, struct vfio_pci *pci);
/*
 * Waits for the worker of the device that is leaving, and calls done. Another one that was ejected leaves with the next
 * turn of the loop.
 */
void host_devices_remove_end(struct host_devices *devices);
/* The machine ends. */
void host_devices_remove_all(struct host_devices *devices);
