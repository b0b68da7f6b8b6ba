/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest-physical address map of an x86 machine. RAM is from 0 up to the hole, the rest of it from 4 GiB on. boot/
 * writes the structures below 1 MiB.
 */
#pragma once

#include <stdint.h>

/* Below 1 MiB */
#define LAYOUT_GDT 0x500ull            /* null, null, code, data, task state: the selectors below */
#define LAYOUT_GDT_SIZE 0x28u
#define LAYOUT_GDT_CODE 0x10u
#define LAYOUT_GDT_DATA 0x18u
#define LAYOUT_GDT_TSS 0x20u
#define LAYOUT_BOOT_PARAMS 0x7000ull  /* zero page or hvm_start_info, 4 KiB and its tables */
#define LAYOUT_PAGE_TABLES 0x9000ull  /* PML4, PDPT, four PDs: 24 KiB */
#define LAYOUT_CMDLINE 0x20000ull
#define LAYOUT_CMDLINE_SIZE 0x10000ull
#define LAYOUT_EBDA 0x9fc00ull        /* RAM that the guest may use ends here */
#define LAYOUT_ACPI 0xe0000ull        /* 128 KiB, reserved in the memory map: RSDP and tables, and these: */
#define LAYOUT_ACPI_SIZE 0x20000ull
#define LAYOUT_MPTABLE 0xfc000ull     /* the MP table, found by its pointer; those of ACPI end below */
#define LAYOUT_MPTABLE_SIZE 0x2000u
#define LAYOUT_VMCLOCK 0xfe000ull     /* a page */
#define LAYOUT_VMCLOCK_SIZE 0x1000u
#define LAYOUT_VMGENID 0xff000ull     /* 16 bytes */
#define LAYOUT_ACPI_RECORD 0xfff00ull /* for the DSDT: struct acpi_record of acpi_x86.c */
#define LAYOUT_HIGH 0x100000ull       /* RAM continues here */

/* The hole below 4 GiB */
#define LAYOUT_HOLE 0xc0000000ull
#define LAYOUT_PCI_MEM32 0xc0000000ull
#define LAYOUT_PCI_MEM32_SIZE 0x20000000ull
#define LAYOUT_ECAM 0xe0000000ull     /* one bus: 1 MiB; also in the MCFG */
#define LAYOUT_ECAM_SIZE 0x100000ull
#define LAYOUT_VIRTIO_MMIO 0xe0100000ull /* the pages of virtio devices that are not on PCI: 1 to 30 */
#define LAYOUT_VIRTIO_MMIO_SIZE 0x1000u
#define LAYOUT_VIRTIO_MMIO_DEVICES 30u
#define LAYOUT_IOAPIC 0xfec00000ull
#define LAYOUT_LAPIC 0xfee00000ull
#define LAYOUT_KVM_TSS 0xfffbd000ull  /* three pages, and one for the identity map: KVM uses them on Intel */
#define LAYOUT_KVM_IDENTITY 0xfffbc000ull
#define LAYOUT_4G 0x100000000ull

/* Ports */
#define LAYOUT_COM1 0x3f8u
#define LAYOUT_KEYBOARD 0x60u         /* the data; the commands are at 0x64 */
#define LAYOUT_RTC 0x70u
#define LAYOUT_RTC_CENTURY 0x32u      /* one of its registers */
#define LAYOUT_PVPANIC 0x505u
#define LAYOUT_PCI_PORTS 0xcf8u       /* PCI configuration: the address, and from 0xcfc on the data */
#define LAYOUT_POWER 0x600u           /* devices/platform.h: POWER_PORTS bytes, of which ACPI names these */
#define LAYOUT_POWER_SLEEP_CONTROL 0u
#define LAYOUT_POWER_SLEEP_STATUS 1u
#define LAYOUT_POWER_RESET 2u
#define LAYOUT_POWER_PM1_EVENTS 16u
#define LAYOUT_POWER_PM1_CONTROL 20u
#define LAYOUT_POWER_PM1_TIMER 24u
#define LAYOUT_PCI_IO 0x1000u
#define LAYOUT_PCI_IO_SIZE 0xf000u

/* GSIs */
#define LAYOUT_GSI_KEYBOARD 1u
#define LAYOUT_GSI_COM1 4u
#define LAYOUT_GSI_RTC 8u
#define LAYOUT_GSI_GED 9u
#define LAYOUT_GSI_SCI 10u
#define LAYOUT_GSI_PCI 16u            /* INTA..INTD of the root: 16 to 19 */

static inline uint64_t layout_virtio_mmio(unsigned int device)
{
	return LAYOUT_VIRTIO_MMIO + (uint64_t)device * LAYOUT_VIRTIO_MMIO_SIZE;
}

/*
 * Edges, which several devices can share, on the lines of ISA that the platform leaves free: of others, a kernel knows by ACPI
 * alone, or by the MP table, and one whose ACPI does not come up by neither.
 */
static inline uint32_t layout_virtio_mmio_gsi(unsigned int device)
{
	static const uint8_t gsis[] = {5, 6, 7, 11, 12, 13, 14, 15};

	return gsis[(device - 1) % sizeof(gsis)];
}
