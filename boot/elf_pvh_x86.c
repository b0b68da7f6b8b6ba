/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 64-bit ELF kernels by their PVH note (Xen docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h): each
 * PT_LOAD goes to its physical address, hvm_start_info at LAYOUT_BOOT_PARAMS says where everything else lies, the
 * kernel is entered in 32-bit protected mode at the address that the note XEN_ELFNOTE_PHYS32_ENTRY gives. Asked by
 * image.c.
 */
#include "boot/format.h"
#include "boot/place_x86.h"

#include <elf.h>

#define NOTE_PHYS32_ENTRY 18u
#define SEGMENTS_MAX 32u
#define NOTES_MAX KIB(64)

/* PVH has no limit. Linux takes 2048 bytes with the NUL, and panics in silence if the NUL is not among them. */
#define LONGEST_CMDLINE 2047u

#define START_INFO_MAGIC 0x336ec578u
struct start_info {
	uint32_t magic, version, flags, modules;
	uint64_t module_list, cmdline, rsdp, memory_map;
	uint32_t memory_map_entries, reserved;
};
struct start_info_module {
	uint64_t start, size, cmdline, reserved;
};
struct start_info_memory {
	uint64_t start, size;
	uint32_t type, reserved;
};
/* What is written at LAYOUT_BOOT_PARAMS. */
struct start_block {
	struct start_info info;
	struct start_info_module module;
	struct start_info_memory memory[PLACE_RANGES_MAX];
};
_Static_assert(sizeof(struct start_info) == 56 && sizeof(struct start_info_module) == 32 &&
		       sizeof(struct start_info_memory) == 24,
	       "as Xen lays them out");
_Static_assert(sizeof(struct start_block) <= GUEST_PAGE_SIZE, "the start information fits into its page");

struct segment {
	uint64_t offset, file_size; /* in the file */
	uint64_t gpa, size;         /* in the guest; what the file does not fill is zero */
};

struct elf_image {
	struct segment segments[SEGMENTS_MAX];
	size_t count;
	uint64_t end;      /* of the highest segment */
	uint64_t entry;    /* 0: no note of it */
	struct err broken; /* why notes could not be read; empty: all were */
};

/* The machine's kind. 0 when it is ours. */
static int elf_pvh_check_ident(const Elf64_Ehdr *ehdr, struct err *err)
{
	if (ehdr->e_ident[EI_CLASS] != ELFCLASS64 || ehdr->e_ident[EI_DATA] != ELFDATA2LSB ||
	    ehdr->e_machine != EM_X86_64)
		return err_set(err, -ENOEXEC, "wrong architecture: ELF class %u, machine %u; give a kernel for x86-64",
			       ehdr->e_ident[EI_CLASS], ehdr->e_machine);
	if (ehdr->e_type != ET_EXEC && ehdr->e_type != ET_DYN)
		return err_set(err, -ENOEXEC, "not a kernel: an ELF file of type %u", ehdr->e_type);
	if (ehdr->e_phentsize != sizeof(Elf64_Phdr) || !ehdr->e_phnum || ehdr->e_phnum > SEGMENTS_MAX)
		return err_set(err, -ENOEXEC, "broken ELF header: %u program headers of %u bytes", ehdr->e_phnum,
			       ehdr->e_phentsize);
	return 0;
}

static int elf_pvh_add_segment(struct elf_image *image, const struct boot_file *file, const Elf64_Phdr *phdr,
			       struct err *err)
{
	if (!phdr->p_memsz)
		return 0;
	if (phdr->p_filesz > phdr->p_memsz)
		return err_set(err, -ENOEXEC, "broken segment at 0x%llx: more bytes in the file than in memory",
			       (unsigned long long)phdr->p_paddr);
	if (phdr->p_offset > file->size || phdr->p_filesz > file->size - phdr->p_offset)
		return err_set(err, -ENOEXEC, "truncated: the segment at 0x%llx ends beyond the file's end",
			       (unsigned long long)phdr->p_paddr);
	if (phdr->p_paddr < LAYOUT_HIGH || phdr->p_paddr >= LAYOUT_HOLE || phdr->p_memsz > LAYOUT_HOLE - phdr->p_paddr)
		return err_set(err, -ENOEXEC, "the segment at 0x%llx, 0x%llx bytes, is not between 1 MiB and 3 GiB",
			       (unsigned long long)phdr->p_paddr, (unsigned long long)phdr->p_memsz);
	image->segments[image->count++] = (struct segment){
		.offset = phdr->p_offset,
		.file_size = phdr->p_filesz,
		.gpa = phdr->p_paddr,
		.size = phdr->p_memsz,
	};
	image->end = MAX(image->end, phdr->p_paddr + phdr->p_memsz);
	return 0;
}

/* One note, at this offset of the notes: its size with padding, or 0 if it ends beyond them. */
static uint64_t elf_pvh_read_note(struct elf_image *image, const uint8_t *notes, uint64_t size, uint64_t at,
				  uint64_t align)
{
	uint64_t name_size = get_le32(notes + at), desc_size = get_le32(notes + at + 4);
	uint32_t type = get_le32(notes + at + 8);
	uint64_t name = at + sizeof(Elf64_Nhdr), desc = align_up(name + name_size, align);

	if (desc + desc_size > size)
		return 0;
	if (type == NOTE_PHYS32_ENTRY && name_size == 4 && !memcmp(notes + name, "Xen", 4) &&
	    (desc_size == 4 || desc_size == 8))
		image->entry = desc_size == 4 ? get_le32(notes + desc) : get_le64(notes + desc);
	return align_up(desc + desc_size, align) - at;
}

/* Looks for the entry. What follows it is of no interest, and may be broken. */
static void elf_pvh_search_notes(struct elf_image *image, const uint8_t *notes, uint64_t size, uint64_t align)
{
	uint64_t at = 0, step = 1;

	while (!image->entry && step && at + sizeof(Elf64_Nhdr) <= size) {
		step = elf_pvh_read_note(image, notes, size, at, align);
		at += step;
	}
	if (!step && !image->broken.text[0])
		err_set(&image->broken, -ENOEXEC, "broken notes: one at offset %llu ends beyond them",
			(unsigned long long)at);
}

/*
 * Searches one PT_NOTE. Its alignment is not always that of its notes: many linkers put notes that are packed by 4 into
 * a segment that is aligned to 8.
 */
static int elf_pvh_read_notes(struct elf_image *image, const struct boot_file *file, const Elf64_Phdr *phdr,
			      struct err *err)
{
	_cleanup_(free_ptr) uint8_t *notes = NULL;
	uint64_t size = phdr->p_filesz;
	int ret;

	if (size > NOTES_MAX)
		return err_set(&image->broken, 0, "broken notes: %llu bytes", (unsigned long long)size);
	notes = malloc(size + 1);
	if (!notes)
		return err_sys(err, -ENOMEM, "notes");
	ret = boot_read(file->fd, phdr->p_offset, notes, size, err);
	if (ret < 0)
		return ret;
	if (phdr->p_align == 8)
		elf_pvh_search_notes(image, notes, size, 8);
	elf_pvh_search_notes(image, notes, size, 4);
	return 0;
}

static int elf_pvh_check_entry(const struct elf_image *image, struct err *err)
{
	if (!image->entry && image->broken.text[0])
		return err_set(err, -ENOEXEC, "%s", image->broken.text);
	if (!image->entry)
		return err_set(err, -ENOEXEC, "no PVH entry: the kernel was built without CONFIG_PVH; use a bzImage");
	for (size_t i = 0; i < image->count; i++) {
		const struct segment *s = &image->segments[i];

		if (image->entry >= s->gpa && image->entry - s->gpa < s->size)
			return 0;
	}
	return err_set(err, -ENOEXEC, "broken PVH note: the entry 0x%llx lies in no segment",
		       (unsigned long long)image->entry);
}

static int elf_pvh_parse(const struct boot_file *file, void *parsed, struct err *err)
{
	struct elf_image *image = parsed;
	Elf64_Phdr phdrs[SEGMENTS_MAX];
	Elf64_Ehdr ehdr;
	int ret;

	if (file->size < sizeof(ehdr))
		return err_set(err, -ENOEXEC, "truncated: the file ends within the ELF header");
	memcpy(&ehdr, file->head, sizeof(ehdr));
	ret = elf_pvh_check_ident(&ehdr, err);
	if (ret < 0)
		return ret;
	if (ehdr.e_phoff > file->size)
		return err_set(err, -ENOEXEC, "truncated: the program headers lie beyond the file's end");
	ret = boot_read(file->fd, ehdr.e_phoff, phdrs, ehdr.e_phnum * sizeof(phdrs[0]), err);
	for (unsigned int i = 0; i < ehdr.e_phnum && ret == 0; i++) {
		if (phdrs[i].p_type == PT_LOAD)
			ret = elf_pvh_add_segment(image, file, &phdrs[i], err);
		else if (phdrs[i].p_type == PT_NOTE && phdrs[i].p_offset <= file->size && !image->entry)
			ret = elf_pvh_read_notes(image, file, &phdrs[i], err);
	}
	return ret < 0 ? ret : elf_pvh_check_entry(image, err);
}

static bool elf_pvh_is(const uint8_t *head)
{
	return memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int elf_pvh_write_start_info(struct guest_memory *memory, const struct place_map *map, uint64_t rsdp,
				    uint64_t initrd, uint64_t initrd_size, struct err *err)
{
	struct start_block block = {
		.info = {
			.magic = START_INFO_MAGIC,
			.version = 1,
			.modules = initrd_size ? 1 : 0,
			.module_list = initrd_size ? LAYOUT_BOOT_PARAMS + offsetof(struct start_block, module) : 0,
			.cmdline = LAYOUT_CMDLINE,
			.rsdp = rsdp,
			.memory_map = LAYOUT_BOOT_PARAMS + offsetof(struct start_block, memory),
			.memory_map_entries = (uint32_t)map->count,
		},
		.module = {.start = initrd, .size = initrd_size},
	};

	for (size_t i = 0; i < map->count; i++)
		block.memory[i] = (struct start_info_memory){
			.start = map->ranges[i].start,
			.size = map->ranges[i].size,
			.type = map->ranges[i].type,
		};
	return place_write(memory, LAYOUT_BOOT_PARAMS, &block, sizeof(block), err);
}

static int elf_pvh_load(const struct boot_file *file, const void *parsed, const struct boot_config *config,
			struct guest_memory *memory, struct boot_entry *ret, struct err *err)
{
	const struct elf_image *image = parsed;
	uint64_t initrd, initrd_size, top;
	struct place_map map;
	int r;

	r = place_memory_map(file, memory, image->end, &map, &top, err);
	for (size_t i = 0; i < image->count && r == 0; i++)
		r = boot_read_kernel(file, image->segments[i].offset, memory, image->segments[i].gpa,
				     image->segments[i].file_size, err);
	if (r == 0)
		r = place_initrd(config, memory, image->end, top, &initrd, &initrd_size, err);
	if (r == 0)
		r = place_cmdline(memory, config->cmdline, LONGEST_CMDLINE, err);
	if (r == 0)
		r = elf_pvh_write_start_info(memory, &map, config->rsdp, initrd, initrd_size, err);
	if (r == 0)
		r = place_gdt(memory, false, err);
	if (r < 0)
		return r;
	*ret = (struct boot_entry){
		.protocol = BOOT_PVH,
		.entry = image->entry,
		.params = LAYOUT_BOOT_PARAMS,
		.gdt = LAYOUT_GDT,
	};
	return 0;
}

const struct boot_format boot_elf_pvh = {
	.parsed_size = sizeof(struct elf_image),
	.is = elf_pvh_is,
	.parse = elf_pvh_parse,
	.load = elf_pvh_load,
};
