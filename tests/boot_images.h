/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small sound kernel files, made in memory: what the loaders' tests and fuzzers start from.
 */
#pragma once

#include "core/util.h"

#include <asm/bootparam.h>
#include <elf.h>

/* ---- a bzImage: IMAGES_BZ_SETUP bytes of setup, IMAGES_BZ_PAYLOAD bytes that count up in 32-bit words ---- */
#define IMAGES_BZ_SETUP 1536u /* setup_sects 2: not a page multiple */
#define IMAGES_BZ_PAYLOAD 5008u
#define IMAGES_BZ_SIZE (IMAGES_BZ_SETUP + IMAGES_BZ_PAYLOAD)
#define IMAGES_BZ_INIT_SIZE MIB(4)

static inline struct setup_header *images_bz_header(uint8_t *file)
{
	return (struct setup_header *)(file + offsetof(struct boot_params, hdr));
}

static inline void images_make_bz(uint8_t file[static IMAGES_BZ_SIZE])
{
	struct setup_header *setup = images_bz_header(file);

	memset(file, 0, IMAGES_BZ_SIZE);
	for (uint32_t i = 0; i < IMAGES_BZ_PAYLOAD; i += 4)
		put_le32(file + IMAGES_BZ_SETUP + i, i);
	setup->setup_sects = IMAGES_BZ_SETUP / 512 - 1;
	setup->syssize = IMAGES_BZ_PAYLOAD / 16;
	setup->boot_flag = 0xaa55;
	setup->jump = 0x66eb;
	setup->header = 0x53726448; /* HdrS */
	setup->version = 0x20f;
	setup->loadflags = LOADED_HIGH;
	setup->initrd_addr_max = 0x7fffffff;
	setup->kernel_alignment = 0x200000;
	setup->relocatable_kernel = 1;
	setup->min_alignment = 21;
	setup->xloadflags = XLF_KERNEL_64;
	setup->cmdline_size = 2047;
	setup->pref_address = 0x1000000;
	setup->init_size = IMAGES_BZ_INIT_SIZE;
}

/* ---- an ELF with a PVH note: a congruent segment of three pages and a bit, one of zeroes, a misaligned one ---- */
#define IMAGES_ELF_SEGMENTS 4u /* the note is the last one */
#define IMAGES_ELF_TEXT_OFFSET 0x1010u
#define IMAGES_ELF_TEXT_SIZE 0x3421u
#define IMAGES_ELF_TEXT_GPA 0x1000010ull
#define IMAGES_ELF_TEXT_MEMORY 0x6000u
#define IMAGES_ELF_BSS_GPA 0x1008000ull
#define IMAGES_ELF_DATA_OFFSET 0x4440u
#define IMAGES_ELF_DATA_SIZE 0x333u
#define IMAGES_ELF_DATA_GPA 0x1009007ull
#define IMAGES_ELF_SIZE (IMAGES_ELF_DATA_OFFSET + IMAGES_ELF_DATA_SIZE)
#define IMAGES_ELF_ENTRY (IMAGES_ELF_TEXT_GPA + 0x80)
#define IMAGES_ELF_NOTE_OFFSET 0x200u

struct images_elf_head {
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdrs[IMAGES_ELF_SEGMENTS];
};

static inline void images_make_elf(uint8_t file[static IMAGES_ELF_SIZE])
{
	/* A note of somebody else's, then ours: sizes of name and description, type, name, description */
	static const uint32_t notes[] = {
		4, 5, 18, 0x00554e47, 0x01010101, 0x01, /* GNU */
		4, 4, 18, 0x006e6558, IMAGES_ELF_ENTRY, /* Xen, XEN_ELFNOTE_PHYS32_ENTRY */
	};
	const struct images_elf_head head = {
		.ehdr = {
			.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_phoff = sizeof(Elf64_Ehdr),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = IMAGES_ELF_SEGMENTS,
		},
		.phdrs = {
			{.p_type = PT_LOAD, .p_offset = IMAGES_ELF_TEXT_OFFSET, .p_paddr = IMAGES_ELF_TEXT_GPA,
			 .p_filesz = IMAGES_ELF_TEXT_SIZE, .p_memsz = IMAGES_ELF_TEXT_MEMORY},
			{.p_type = PT_LOAD, .p_paddr = IMAGES_ELF_BSS_GPA, .p_memsz = 0x1000},
			{.p_type = PT_LOAD, .p_offset = IMAGES_ELF_DATA_OFFSET, .p_paddr = IMAGES_ELF_DATA_GPA,
			 .p_filesz = IMAGES_ELF_DATA_SIZE, .p_memsz = IMAGES_ELF_DATA_SIZE},
			{.p_type = PT_NOTE, .p_offset = IMAGES_ELF_NOTE_OFFSET, .p_filesz = sizeof(notes),
			 .p_memsz = sizeof(notes), .p_align = 4},
		},
	};

	for (uint32_t i = 0; i < IMAGES_ELF_SIZE; i++)
		file[i] = (uint8_t)(i * 7 + (i >> 8));
	memcpy(file, &head, sizeof(head));
	memcpy(file + IMAGES_ELF_NOTE_OFFSET, notes, sizeof(notes));
}
