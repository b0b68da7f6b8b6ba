/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands around a PCI function in a machine, for tests: buses, a PCI root, an interrupt controller that counts
 * what it delivers, and eventfd notifications that are counted when they are attached.
 */
#pragma once

#include "devices/pci.h"

#define RIG_ECAM 0xe0000000ull
#define RIG_MEM64 0x200000000ull
#define RIG_VECTORS 80u

struct rig_vector {
	struct msi_vector vector;
	struct pci_rig *rig;
	bool used, connected;
	struct msi_message message;
};

struct pci_rig {
	struct bus *mmio, *pio;
	struct pci_bus *bus;
	struct irq_line line; /* of the only function with a pin */
	struct msi_controller msi;
	struct rig_vector vectors[RIG_VECTORS];
	unsigned int attached, attaches, detaches; /* eventfds on the mmio bus */
	bool refuse_attach;
};

/* Aborts when the host has no memory. */
void rig_open(struct pci_rig *rig);
/* All functions but the host bridge are gone. */
void rig_close(struct pci_rig *rig);

uint32_t rig_cfg(struct pci_rig *rig, unsigned int devfn, unsigned int offset, unsigned int len);
void rig_cfg_write(struct pci_rig *rig, unsigned int devfn, unsigned int offset, unsigned int len, uint32_t value);
/* Offset of the nth capability with an id, 0 for none. */
unsigned int rig_find_cap(struct pci_rig *rig, unsigned int devfn, uint8_t id, unsigned int nth);
/* Where the function's 64-bit BAR 0 is. */
uint64_t rig_bar(struct pci_rig *rig, unsigned int devfn);

/* How often the message with data was delivered since it was asked for last; what was kicked meanwhile counts once. */
unsigned int rig_delivered(struct pci_rig *rig, uint32_t data);
