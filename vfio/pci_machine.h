/* SPDX-License-Identifier: Apache-2.0 */
/* What a passed-through function (vfio/pci.h) needs of the machine around it, and how it is wanted. */
#pragma once

#include "core/event_loop.h"
#include "devices/msix.h"

#include <pthread.h>

struct vfio_pci;

/* Shows host bytes to the vCPUs at a guest address, as memory (KVM_SET_USER_MEMORY_REGION). Page multiples. */
struct vfio_map_ops {
	int (*map)(void *opaque, uint64_t gpa, uint64_t size, void *host, struct err *err);
	void (*unmap)(void *opaque, uint64_t gpa);
};

/* The machine around it; outlives it. */
struct vfio_pci_machine {
	struct pci_bus *bus;
	struct msi_controller *msi;
	struct event_loop *loop;
	const struct log *log;
	const struct vfio_map_ops *map;
	void *map_opaque;
	/* The host wants the device back (its driver is being unbound); on the event loop's thread. */
	void (*wanted)(void *opaque, struct vfio_pci *pci);
	void *wanted_opaque;
	pthread_mutex_t *space_lock; /* held around calls that change the device's struct vfio_space */
};

struct vfio_pci_options {
	const char *id; /* for messages; copied */
	bool rom;       /* show the expansion ROM */
	const char *rom_file; /* in place of the device's own, or NULL */
	const int *rom_fd;    /* that file, if somebody else has opened it, who keeps it; NULL: it is opened by its path */
	int devfn;      /* or -1: the first free device */
};
