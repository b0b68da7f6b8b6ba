/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a guest starts: the kernel is recognised and placed into guest memory with its initrd, command line and tables,
 * and the caller learns how the first vCPU enters it. boot/ knows files, guest memory and layouts; it knows nothing of
 * KVM or devices.
 *
 * A kernel file is hostile until checked, and so is the initrd's size: every offset and length is verified against the
 * file and against guest memory before a byte moves.
 */
#pragma once

#include "core/guest_memory.h"

enum boot_protocol { BOOT_LINUX64, BOOT_PVH };

/* How the boot vCPU enters the kernel. BOOT_LINUX64: long mode, rip = entry, rsi = params, identity page tables at
 * page_tables; BOOT_PVH: 32-bit protected mode without paging, eip = entry, ebx = params. The table at gdt holds flat
 * segments for either (layout_x86.h: LAYOUT_GDT_*). */
struct boot_entry {
	enum boot_protocol protocol;
	uint64_t entry;
	uint64_t params;
	uint64_t page_tables;
	uint64_t gdt;
};

/* A kernel file, opened and checked. */
struct boot_image;
/*
 * Opens path, or, if that is not NULL, file, which is another name of it. Tells the kind from the bytes (bzImage, ELF
 * with a PVH note) and checks the headers. Messages name path. -ENOENT, -ENOEXEC (not a kernel, wrong architecture,
 * truncated), ...
 */
int boot_image_open(const char *path, const char *file, struct boot_image **ret, struct err *err);
void boot_image_close(struct boot_image *image);

struct boot_config {
	const struct boot_image *image;
	const char *initrd;      /* path or NULL */
	const char *initrd_file; /* what is opened, if that is not initrd */
	const char *cmdline;     /* the whole line, not NULL */
	uint64_t rsdp;           /* guest address of the ACPI root pointer, 0 for none */
};
/*
 * Places everything; *ret is filled in on success. -ENOSPC when it does not fit into memory, -E2BIG a too long line.
 * The memory is fresh: it reads as zero. All of guest memory below LAYOUT_HOLE and from
 * LAYOUT_4G on is described to the guest as its RAM.
 */
int boot_load(const struct boot_config *config, struct guest_memory *memory, struct boot_entry *ret, struct err *err);
