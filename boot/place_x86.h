/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside boot/: what both x86 formats put into guest memory beside the kernel: the memory map as the firmware would
 * give it, the command line, the initrd, descriptor and page tables.
 */
#pragma once

#include "boot/file.h"
#include "boot/layout_x86.h"

/* One entry of the memory map; the types are those of ACPI 6.4 table 15.2, which e820 and PVH share. */
struct place_range {
	uint64_t start, size;
	uint32_t type;
};
#define PLACE_RAM 1u
#define PLACE_RESERVED 2u

/* All regions of guest memory (at most 64) and what is reserved; adjacent ones are joined. */
#define PLACE_RANGES_MAX 80u
struct place_map {
	struct place_range ranges[PLACE_RANGES_MAX];
	size_t count;
};

/*
 * Describes guest memory to the guest, ascending. *ret_top is the end of what a kernel and its initrd may lie in, and
 * end that of the kernel of this file. -ENOSPC when it lies beyond, when there is no RAM at the start of the address
 * space, or less than 2 MiB.
 */
int place_memory_map(const struct boot_file *file, const struct guest_memory *memory, uint64_t end,
		     struct place_map *ret, uint64_t *ret_top, struct err *err);

/* Writes what belongs at a place of the layout. -ENOSPC when there is no memory. */
int place_write(struct guest_memory *memory, uint64_t gpa, const void *data, size_t len, struct err *err);

/* Writes the command line and its NUL at LAYOUT_CMDLINE. limit: bytes without the NUL. -E2BIG. */
int place_cmdline(struct guest_memory *memory, const char *cmdline, uint64_t limit, struct err *err);

/*
 * Puts the initrd at the highest page that lets it end at or below top, but not below bottom. *gpa and *size are where
 * it lies, 0 and 0 when there is none. -ENOSPC when it does not fit.
 */
int place_initrd(const struct boot_config *config, struct guest_memory *memory, uint64_t bottom, uint64_t top,
		 uint64_t *gpa, uint64_t *size, struct err *err);

/* Writes the descriptor table at LAYOUT_GDT; its code segment is for 64-bit mode or for 32-bit mode. */
int place_gdt(struct guest_memory *memory, bool code64, struct err *err);

/* Writes page tables at LAYOUT_PAGE_TABLES that map the first 4 GiB to themselves in pages of 2 MiB. */
int place_page_tables(struct guest_memory *memory, struct err *err);
