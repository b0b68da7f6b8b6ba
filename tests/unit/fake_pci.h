/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is inside a device of the fake kernel, as vfio-pci shows it: regions with sparse areas, the config region as a
 * table of bytes, interrupts that a test fires, the reset of its bus. Part of fake_vfio.h.
 *
 * What happens in an order that matters is written into the journal: writes of the command register, changes of the
 * power state and resets here, maps by whoever records them. As in the kernel, a device that stops decoding revokes what
 * is mapped of its BARs.
 */
#pragma once

#include "tests/unit/fake_vfio.h"

#include <linux/pci_regs.h>

#define FAKE_VECTORS 64
#define FAKE_AREAS 40
#define FAKE_DEPENDENTS 4
#define FAKE_REGION_SHIFT 40
#define FAKE_REGION_RW (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE)
#define FAKE_REGION_RWM (FAKE_REGION_RW | VFIO_REGION_INFO_FLAG_MMAP)

struct fake_region {
	uint64_t size;
	uint32_t flags;
	unsigned int area_count; /* 0: no sparse capability */
	unsigned int more_areas; /* that the capability speaks of and does not have */
	struct { uint64_t offset, size; } areas[FAKE_AREAS];
	int refuse;              /* -errno of reads and writes */
	/* the last write */
	uint64_t written_at;
	uint32_t written;
	unsigned int reads, writes;
};

struct fake_irq {
	uint32_t flags, count;
	uint32_t available; /* vectors that the host has; 0: enough */
	uint32_t enabled;   /* vectors that it is enabled with; 0: off */
	int fds[FAKE_VECTORS];
	uint64_t waiting; /* MSI-X: vectors that fired while they kicked nobody, the device's own pending bits */
	unsigned int enables;
	/* INTx */
	bool no_unmask_fd, no_unmask; /* the device answers ENOTTY */
	bool masked, pending;
	int unmask_fd;
};

struct fake_pci {
	uint8_t config[4096];
	struct fake_region regions[VFIO_PCI_NUM_REGIONS];
	struct fake_irq irqs[VFIO_PCI_NUM_IRQS];
	bool no_mmap;
	bool stuck; /* stays in D3hot */
	uint16_t asleep_command; /* the command register when it went into D3hot, which it has again in D0 */
	/* the bus: function i has its group, or another one */
	bool can_hot_reset;
	int refuse_hot_reset; /* with this -errno */
	unsigned int dependent_count;
	struct { int group; uint8_t devfn; } dependents[FAKE_DEPENDENTS];
	unsigned int hot_resets;
};

/* Gives the device an inside: 4 KiB of config space, an NVMe's class, INTx on pin A. Freed with the kernel. */
struct fake_pci *fake_pci(struct fake_device *device);

/* flags: the low bits of the register. */
void fake_pci_bar(struct fake_pci *pci, unsigned int bar, uint32_t low, uint64_t size, uint32_t flags);
void fake_pci_area(struct fake_pci *pci, unsigned int bar, uint64_t offset, uint64_t size);
/* Capabilities, each linked behind the last one; return their offset. */
unsigned int fake_pci_cap(struct fake_pci *pci, unsigned int at, uint8_t id);
unsigned int fake_pci_ext_cap(struct fake_pci *pci, unsigned int at, uint16_t id);
unsigned int fake_pci_msi(struct fake_pci *pci, unsigned int at, uint16_t flags, unsigned int log2_vectors);
unsigned int fake_pci_msix(struct fake_pci *pci, unsigned int at, unsigned int vectors, uint32_t table, uint32_t pba);

/* The device interrupts: true when that kicked somebody. An automasked one waits until it is unmasked. */
bool fake_pci_fire(struct fake_pci *pci, unsigned int index, unsigned int vector);
/* Does what was asked for by the unmask eventfd; true when it was. */
bool fake_pci_poll_unmask(struct fake_pci *pci);

/* Adds a word and a number to the journal; fake_journal gives it, and begins a new one. */
void fake_note(struct fake_kernel *fake, const char *word, uint64_t number);
const char *fake_journal(struct fake_kernel *fake);
