/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables of the machine (ACPI 6.4): RSDP, XSDT, FADT, FACS, MADT, MCFG, and the DSDT that iasl compiles at
 * build time. The properties of one machine (CPU count, the 64-bit PCI window) come from acpi_config.
 */
#pragma once

#include "core/guest_memory.h"

struct acpi_config {
	unsigned int cpus;                   /* 1 to 254 */
	const uint32_t *apic_ids;            /* one each */
	uint64_t pci_mem64, pci_mem64_size;  /* the window above RAM */
	bool serial;                         /* the machine has COM1 */
	bool keyboard;                       /* an operating system looks for the 8042, which takes it time */
	bool timer;                          /* name the ACPI timer, on which Linux spends 5 ms at boot */
	uint32_t hotplug;                    /* bit d: hot plug of PCI device d (Linux logs a line for each) */
	uint32_t virtio_mmio;                /* bit d: virtio device d is on MMIO (LAYOUT_VIRTIO_MMIO) */
};
/* Writes the tables at LAYOUT_ACPI, the root pointer first. -ENOSPC: they do not fit. */
int acpi_build(const struct acpi_config *config, struct guest_memory *memory, struct err *err);
