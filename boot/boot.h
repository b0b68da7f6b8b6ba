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
/* Tells the kind from the bytes (bzImage, ELF with a PVH note) and checks the headers; option names it in messages
 * ("--kernel"). -ENOENT, -ENOEXEC (not a kernel, wrong architecture, truncated), ... */
int boot_image_open(const char *path, struct boot_image **ret, struct err *err);
void boot_image_close(struct boot_image *image);

/*
 * A piece of a file that may be mapped over the guest's RAM instead of being copied there: the file's bytes from offset
 * on belong at gpa, all page multiples; size may go up to a page beyond the file's end, where a mapping reads zero.
 *
 * The mapping is private and writable. Pages that the guest never wrote stay the file's for as long as the machine
 * lives: who truncates the file meanwhile makes accesses to them fail (SIGBUS, KVM_RUN's EFAULT), and who writes into
 * it changes them. Replacing the file by a new one of that name, as package managers do, is harmless.
 */
struct boot_mapping {
	int fd; /* may be closed once it is mapped */
	uint64_t offset, size, gpa;
};

struct boot_config {
	const struct boot_image *image;
	const char *initrd;     /* path or NULL */
	const char *cmdline;    /* the whole line, not NULL */
	uint64_t rsdp;          /* guest address of the ACPI root pointer, 0 for none */
	/* Maps a piece over RAM. false: it was not done, and the piece is copied. NULL where RAM cannot be mapped over:
	 * when it is shared, of huge pages, or already known by its pages to somebody else (a device's DMA). */
	bool (*map)(void *opaque, const struct boot_mapping *mapping);
	void *opaque;
};
/*
 * Places everything; *ret is filled in on success. -ENOSPC when it does not fit into memory, -E2BIG a too long line.
 * The memory is fresh: it reads as zero. All of guest memory below LAYOUT_HOLE and from
 * LAYOUT_4G on is described to the guest as its RAM. For a reboot: give back all RAM
 * (whatever was mapped over it, too) and load again.
 */
int boot_load(const struct boot_config *config, struct guest_memory *memory, struct boot_entry *ret, struct err *err);
