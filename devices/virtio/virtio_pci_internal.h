/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by virtio_pci.c, virtio_pci_common.c and virtio_pci_state.c; no other file includes it. Unless stated
 * otherwise, all of it is under device->lock, which nests inside the PCI bus's lock: no function of pci.h that takes
 * the bus's lock is called with it.
 */
#pragma once

#include "devices/msix.h"
#include "devices/pci.h"
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/virtio_transport.h"

#include <linux/virtio_pci.h>

/* The notification addresses of the queues in the only BAR. */
#define VIRTIO_PCI_BAR 0u
#define VIRTIO_PCI_NOTIFY_AT 0x3000u
#define VIRTIO_PCI_NOTIFY_STEP 4u

struct virtio_pci {
	struct virtio_transport base;
	struct pci_function function;
	struct bus *mmio;
	struct event_loop *loop;
	struct msix *msix;
	unsigned int window; /* offset of VIRTIO_PCI_CAP_PCI_CFG in config space */

	int vector_fd[VIRTIO_MAX_QUEUES + 1]; /* the vector's eventfd, or -1; atomic */

	/* Notifications: the address to which each queue's kick_fd is attached, or PCI_UNMAPPED. */
	uint64_t kick_addr[VIRTIO_MAX_QUEUES];

	/* Interrupts without MSI-X: base.isr, and these for vhost. */
	struct virtio_pci_relay *relays[VIRTIO_MAX_QUEUES];
};

static inline struct virtio_pci *virtio_pci_of_transport(const struct virtio_transport *transport)
{
	return container_of(transport, struct virtio_pci, base);
}

/* Accesses to the common configuration structure; offset + len are inside. */
void virtio_pci_common_read(struct virtio_pci *pci, uint64_t offset, void *data, unsigned int len);
void virtio_pci_common_write(struct virtio_pci *pci, uint64_t offset, const void *data, unsigned int len);
/* Sets the vector of a queue or the config slot; an invalid vector becomes VIRTIO_MSI_NO_VECTOR. */
void virtio_pci_set_vector(struct virtio_pci *pci, unsigned int slot, uint16_t vector);
/* Attaches the kick_fds of enabled queues at the BAR's current address and detaches those attached elsewhere. A reset
 * of the device keeps them, since it ignores kicks: each change costs the kernel a grace period. */
void virtio_pci_place_kicks(struct virtio_pci *pci);

/* virtio_pci_state.c: the transport's own part of the records (virtio_transport_ops). */
extern const struct state_table virtio_pci_state;
int virtio_pci_state_save(struct virtio_transport *transport, struct state_buffer *out, struct err *err);
int virtio_pci_state_load(struct virtio_transport *transport, const uint8_t **data, size_t *len, struct err *err);
