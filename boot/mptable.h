/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MP table (Intel MultiProcessor Specification 1.4), for kernels without ACPI or told not to use it: CPUs, the IOAPIC, and
 * where interrupts of ISA, which are those of virtio on MMIO, too, and of PCI come in.
 */
#pragma once

#include "core/guest_memory.h"

/* Writes it at LAYOUT_MPTABLE. CPUs with APIC ids from 254 on are not in it. -ENOSPC: there is no memory. */
int mptable_build(unsigned int cpus, const uint32_t *apic_ids, struct guest_memory *memory, struct err *err);
