/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst): the protected-mode part goes to 1 MiB,
 * the zero page says where everything else lies, the kernel is entered in long mode at its start + 0x200. Asked by
 * image.c.
 *
 * A relocatable kernel moves itself to a fitting place from wherever it was loaded, at any alignment ("will be
 * realigned during kernel initialization"). So it is loaded at 1 MiB plus what its place in the file is off a page
 * boundary, and whole pages of the file can be mapped there.
 */
#include "boot/format.h"
#include "boot/place_x86.h"

#include <asm/bootparam.h>

#define SECTOR 512u
#define PARAGRAPH 16u
#define ENTRY64 0x200u
#define LOADER_UNKNOWN 0xffu
#define PROTOCOL_NEEDED 0x020cu /* 2.12, Linux 3.8: the first with xloadflags */

_Static_assert(sizeof(struct boot_params) == GUEST_PAGE_SIZE, "the zero page is one page");
_Static_assert(PLACE_RANGES_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "the memory map fits into the zero page");

struct bzimage {
	struct setup_header setup;
	uint64_t offset, size;  /* the protected-mode part in the file */
	uint64_t runtime_start; /* where it will run: it needs init_size bytes from there before it can ask */
};

/* The header's place, length and version. */
static int bzimage_check_header(const struct boot_file *file, struct setup_header *setup, struct err *err)
{
	const size_t start = offsetof(struct boot_params, hdr);
	const size_t end = 0x202u + file->head[0x201];
	const size_t needed = start + offsetof(struct setup_header, handover_offset);

	memcpy(setup, file->head + start, MIN(MAX(end, start) - start, sizeof(*setup)));
	if (setup->version < PROTOCOL_NEEDED)
		return err_set(err, -ENOEXEC, "too old: boot protocol %u.%02u, and 2.12 (Linux 3.8) is needed",
			       setup->version >> 8, setup->version & 0xff);
	if (end < needed)
		return err_set(err, -ENOEXEC, "broken setup header: it ends at 0x%zx, before init_size", end);
	if (!(setup->loadflags & LOADED_HIGH))
		return err_set(err, -ENOEXEC, "this is a zImage; a bzImage is needed");
	if (!(setup->xloadflags & XLF_KERNEL_64))
		return err_set(err, -ENOEXEC, "wrong architecture: this is a 32-bit kernel, one for x86-64 is needed");
	return 0;
}

/* Where the kernel's bytes are and where they go. */
static int bzimage_check_placement(const struct boot_file *file, struct bzimage *image, struct err *err)
{
	const struct setup_header *setup = &image->setup;

	image->offset = (setup->setup_sects ? setup->setup_sects + 1u : 5u) * SECTOR;
	image->size = (uint64_t)setup->syssize * PARAGRAPH;
	if (image->size <= ENTRY64)
		return err_set(err, -ENOEXEC, "broken setup header: syssize %u is too small", setup->syssize);
	/* The header counts paragraphs, and not every linker fills the last one (memtest86+). */
	if (image->offset + image->size > file->size && image->offset + image->size - file->size < PARAGRAPH)
		image->size = file->size - image->offset;
	if (image->offset + image->size > file->size)
		return err_set(err, -ENOEXEC, "truncated: the header promises %llu bytes and the file has %llu",
			       (unsigned long long)(image->offset + image->size), (unsigned long long)file->size);
	if (setup->pref_address < LAYOUT_HIGH || setup->pref_address >= LAYOUT_HOLE)
		return err_set(err, -ENOEXEC, "broken setup header: pref_address 0x%llx is not between 1 MiB and 3 GiB",
			       (unsigned long long)setup->pref_address);
	image->runtime_start = setup->pref_address;
	if (!setup->relocatable_kernel)
		return 0;
	if (!is_power_of_two(setup->kernel_alignment))
		return err_set(err, -ENOEXEC, "broken setup header: kernel_alignment 0x%x is not a power of two",
			       setup->kernel_alignment);
	image->runtime_start = align_up(setup->pref_address, setup->kernel_alignment);
	return 0;
}

static bool bzimage_is(const uint8_t *head)
{
	return get_le16(head + 0x1fe) == 0xaa55 && memcmp(head + 0x202, "HdrS", 4) == 0;
}

static int bzimage_parse(const struct boot_file *file, void *parsed, struct err *err)
{
	struct bzimage *image = parsed;
	int r = bzimage_check_header(file, &image->setup, err);

	return r < 0 ? r : bzimage_check_placement(file, image, err);
}

static void bzimage_fill_e820(struct boot_params *params, const struct place_map *map)
{
	for (size_t i = 0; i < map->count; i++) {
		params->e820_table[i].addr = map->ranges[i].start;
		params->e820_table[i].size = map->ranges[i].size;
		params->e820_table[i].type = map->ranges[i].type;
	}
	params->e820_entries = (uint8_t)map->count;
}

static int bzimage_load(const struct boot_file *file, const void *parsed, const struct boot_config *config,
			struct guest_memory *memory, struct boot_entry *ret, struct err *err)
{
	const struct bzimage *image = parsed;
	struct boot_params params = {.hdr = image->setup, .acpi_rsdp_addr = config->rsdp};
	uint64_t bottom, top, initrd, initrd_size;
	struct place_map map;
	int r;

	bottom = MAX(LAYOUT_HIGH + image->size, image->runtime_start + image->setup.init_size);
	r = place_memory_map(file, memory, bottom, &map, &top, err);
	if (r == 0)
		r = boot_read_kernel(file, image->offset, memory, LAYOUT_HIGH, image->size, err);
	if (r == 0)
		r = place_initrd(config, memory, bottom, MIN(top, image->setup.initrd_addr_max + 1ull), &initrd,
				 &initrd_size, err);
	if (r == 0)
		r = place_cmdline(memory, config->cmdline, image->setup.cmdline_size, err);
	if (r < 0)
		return r;

	params.hdr.type_of_loader = LOADER_UNKNOWN;
	params.hdr.code32_start = (uint32_t)LAYOUT_HIGH;
	params.hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	params.hdr.setup_data = 0;
	params.hdr.ramdisk_image = (uint32_t)initrd;
	params.hdr.ramdisk_size = (uint32_t)initrd_size;
	bzimage_fill_e820(&params, &map);
	r = place_write(memory, LAYOUT_BOOT_PARAMS, &params, sizeof(params), err);
	if (r == 0)
		r = place_gdt(memory, true, err);
	if (r == 0)
		r = place_page_tables(memory, err);
	if (r < 0)
		return r;
	*ret = (struct boot_entry){
		.protocol = BOOT_LINUX64,
		.entry = LAYOUT_HIGH + ENTRY64,
		.params = LAYOUT_BOOT_PARAMS,
		.page_tables = LAYOUT_PAGE_TABLES,
		.gdt = LAYOUT_GDT,
	};
	return 0;
}

const struct boot_format boot_bzimage = {
	.parsed_size = sizeof(struct bzimage),
	.is = bzimage_is,
	.parse = bzimage_parse,
	.load = bzimage_load,
};
