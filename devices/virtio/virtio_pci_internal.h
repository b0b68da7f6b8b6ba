/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by virtio_pci.c, virtio_pci_common.c and virtio_pci_state.c; no other file includes it. Unless stated
 * otherwise, all of it is under device->lock, which nests inside the PCI bus's lock: no function of pci.h that takes
 * the bus's lock is called with it.
 */
#pragma once

#include "devices/msix.h"
#include "devices/pci.h"
#include "devices/virtio/virtio.h"
#include "devices/virtio/virtio_layout.h"

#include <linux/virtio_pci.h>

/* The notification addresses of the queues in the only BAR. */
#define VIRTIO_PCI_BAR 0u
#define VIRTIO_PCI_NOTIFY_AT 0x3000u
#define VIRTIO_PCI_NOTIFY_STEP 4u

#define VIRTIO_PCI_ISR_QUEUE 0x1u /* beside VIRTIO_PCI_ISR_CONFIG */
#define VIRTIO_PCI_CONFIG_SLOT VIRTIO_MAX_QUEUES /* in arrays by queue, the element after the queues */

struct virtio_pci_queue_state {
	uint16_t vector;
	struct virtqueue_setup setup; /* only for saving, as place */
	struct virtqueue_place place; /* of an enabled queue of an active device */
};

struct virtio_pci_state {
	/* The common configuration structure (virtio 1.2 section 4.1.4.3). */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t queue_select;
	struct virtio_pci_queue_state queues[VIRTIO_MAX_QUEUES + 1]; /* and the config slot, which has only a vector */

	/* Only for saving: the device's, or used without the device's lock. */
	uint32_t queue_count;
	uint16_t type;
	uint8_t status, isr, config_generation;
	bool active, broken;
};

struct virtio_pci {
	struct pci_function function;
	struct virtio_device *device;
	struct bus *mmio;
	struct event_loop *loop;
	struct msix *msix;
	unsigned int window; /* offset of VIRTIO_PCI_CAP_PCI_CFG in config space */

	struct virtio_pci_state state;
	uint8_t status; /* also read without the lock; DEVICE_NEEDS_RESET is device->broken */
	int vector_fd[VIRTIO_MAX_QUEUES + 1]; /* the vector's eventfd, or -1; atomic */

	enum { VIRTIO_PCI_STOPPED, VIRTIO_PCI_DRAINING, VIRTIO_PCI_RUNNING } flow; /* of an active device */
	bool loaded;    /* and not resumed since */
	/*
	 * Atomic: a thread that waits for the device under its lock holds up nobody who pauses or resumes the machine.
	 */
	bool paused;    /* the machine is, or is about to be */
	bool unsettled; /* paused has changed since virtio_pci_settle */
	bool waits;     /* a vCPU may wait under the lock; it settles afterwards */

	/* Notifications: the address to which each queue's kick_fd is attached, or PCI_UNMAPPED. */
	uint64_t kick_addr[VIRTIO_MAX_QUEUES];

	/* Interrupts without MSI-X, under isr_lock. */
	pthread_mutex_t isr_lock;
	uint8_t isr;
	struct virtio_pci_relay *relays[VIRTIO_MAX_QUEUES];
};

/* Accesses to the common configuration structure; offset + len are inside. */
void virtio_pci_common_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len);
void virtio_pci_common_write(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len);
/* Resets the device and all that the driver has set. */
void virtio_pci_reset(struct virtio_pci *pci);
/* Sets the vector of a queue or the config slot; an invalid vector becomes VIRTIO_MSI_NO_VECTOR. */
void virtio_pci_set_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector);
/* Tells a running device that the eventfd of a queue's interrupts has changed. */
void virtio_pci_call_changed(struct virtio_pci *pci, unsigned int queue);
/* Activates, drains (by deadline, or -ETIMEDOUT: it goes on draining) or resumes the device, to match status, bus
 * mastering and pause. */
int virtio_pci_settle(struct virtio_pci *pci, int64_t deadline, struct err *err);
/* Attaches the kick_fds of enabled queues at the BAR's current address and detaches those attached elsewhere. A reset
 * of the device keeps them, since it ignores kicks: each change costs the kernel a grace period. */
void virtio_pci_place_kicks(struct virtio_pci *pci);
