/* SPDX-License-Identifier: Apache-2.0 */
/* boot/image, bzimage_x86, elf_pvh_x86 and place_x86: sound kernels land where they should, broken ones are named. */
#include "boot/boot.h"
#include "tests/boot_images.h"
#include "tests/unit/boot_guest.h"

#include <sys/stat.h>

#define LONGEST MAX(IMAGES_BZ_SIZE, IMAGES_ELF_SIZE)

#define CHECK_SAYS(text, says)                          \
	do {                                            \
		if (!strstr(text, says))                \
			printf("# \"%s\"\n", text);     \
		CHECK(strstr(text, says));              \
	} while (0)

/* The two formats, for what both must do. */
struct format {
	const char *name;
	size_t size;
	uint64_t needs; /* bytes of memory */
};
static const struct format formats[] = {
	{"bzImage", IMAGES_BZ_SIZE, 0x1000000 + IMAGES_BZ_INIT_SIZE},
	{"ELF", IMAGES_ELF_SIZE, IMAGES_ELF_DATA_GPA + IMAGES_ELF_DATA_SIZE},
};

static uint8_t bytes[LONGEST];

static void make(const struct format *format)
{
	if (format == &formats[0])
		images_make_bz(bytes);
	else
		images_make_elf(bytes);
}

static struct boot_image *open_bytes(size_t len)
{
	return boot_image_of(bytes, len);
}

/* Opens what is in bytes, which must fail with this code and a message that names the file and says this. */
static void open_fails(size_t len, int code, const char *says)
{
	struct boot_test_file file = boot_file_new(bytes, len, len);
	struct boot_image *image = NULL;
	struct err err = {""};
	int ret = boot_image_open(file.path, NULL, &image, &err);

	close(file.fd);
	CHECK_SAYS(err.text, says);
	CHECK(!strncmp(err.text, "--kernel /proc/self/fd/", 23));
	CHECK_EQ(ret, code);
	CHECK(!image);
}

/* The kernel's bytes as they must lie in the guest. */
static void check_bz_payload(const struct boot_guest *guest)
{
	CHECK(!memcmp(guest->ram + LAYOUT_HIGH, bytes + IMAGES_BZ_SETUP, IMAGES_BZ_PAYLOAD));
}

static bool all_zero(const uint8_t *p, size_t len)
{
	while (len--)
		if (*p++)
			return false;
	return true;
}

static void check_elf_segments(const struct boot_guest *guest)
{
	const uint8_t *text = guest->ram + IMAGES_ELF_TEXT_GPA;

	CHECK(!memcmp(text, bytes + IMAGES_ELF_TEXT_OFFSET, IMAGES_ELF_TEXT_SIZE));
	CHECK(all_zero(text + IMAGES_ELF_TEXT_SIZE, IMAGES_ELF_TEXT_MEMORY - IMAGES_ELF_TEXT_SIZE));
	CHECK(all_zero(guest->ram + align_down(IMAGES_ELF_TEXT_GPA, 4096), 0x10));
	CHECK(all_zero(guest->ram + IMAGES_ELF_BSS_GPA, 0x1000));
	CHECK(!memcmp(guest->ram + IMAGES_ELF_DATA_GPA, bytes + IMAGES_ELF_DATA_OFFSET, IMAGES_ELF_DATA_SIZE));
}

static void check_payload(const struct format *format, const struct boot_guest *guest)
{
	if (format == &formats[0])
		check_bz_payload(guest);
	else
		check_elf_segments(guest);
}

/* What address reads as through the page tables at table, by Intel SDM volume 3, 4.5. */
static uint64_t walk(const struct boot_guest *guest, uint64_t table, uint64_t address)
{
	for (unsigned int shift = 39;; shift -= 9) {
		uint64_t entry = get_le64(guest->ram + table + (address >> shift & 511) * 8);

		CHECK_EQ(entry & 3, 3);
		table = entry & 0x000ffffffffff000;
		if (entry & 0x80)
			return table | (address & ((1ull << shift) - 1));
		CHECK(shift > 12);
	}
}

static void bzimage_is_placed(void)
{
	struct boot_guest guest = boot_guest_new(MIB(128));
	struct boot_test_file initrd = boot_file_new("initial", 7, 10000);
	const struct boot_params *params = (void *)(guest.ram + LAYOUT_BOOT_PARAMS);
	struct boot_config config = {.initrd = initrd.path, .cmdline = "console=ttyS0 x", .rsdp = 0xe0000};
	struct boot_image *image;
	struct boot_entry entry;

	images_make_bz(bytes);
	config.image = image = open_bytes(IMAGES_BZ_SIZE);
	CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
	CHECK_EQ(entry.protocol, BOOT_LINUX64);
	CHECK_EQ(entry.entry, LAYOUT_HIGH + 0x200);
	CHECK_EQ(entry.params, LAYOUT_BOOT_PARAMS);
	check_bz_payload(&guest);

	CHECK_EQ(params->hdr.header, 0x53726448);
	CHECK_EQ(params->hdr.pref_address, 0x1000000);
	CHECK_EQ(params->hdr.type_of_loader, 0xff);
	CHECK_EQ(params->hdr.setup_data, 0);
	CHECK_EQ(params->sentinel, 0);
	CHECK_EQ(params->acpi_rsdp_addr, 0xe0000);
	CHECK_STR((char *)guest.ram + params->hdr.cmd_line_ptr, "console=ttyS0 x");
	CHECK_EQ(params->hdr.ramdisk_image, MIB(128) - 3 * 4096);
	CHECK_EQ(params->hdr.ramdisk_size, 10000);
	CHECK_STR((char *)guest.ram + params->hdr.ramdisk_image, "initial");

	CHECK_EQ(get_le64(guest.ram + entry.gdt), 0);
	CHECK_EQ(get_le64(guest.ram + entry.gdt + 8), 0);
	CHECK_EQ(get_le64(guest.ram + entry.gdt + LAYOUT_GDT_CODE), 0x00af9b000000ffff);
	CHECK_EQ(get_le64(guest.ram + entry.gdt + LAYOUT_GDT_DATA), 0x00cf93000000ffff);
	CHECK_EQ(get_le64(guest.ram + entry.gdt + LAYOUT_GDT_TSS), 0x00008b0000000067);
	for (uint64_t address = 0; address < LAYOUT_4G; address += 0x12345678)
		CHECK_EQ(walk(&guest, entry.page_tables, address), address);
	CHECK_EQ(walk(&guest, entry.page_tables, LAYOUT_4G - 1), LAYOUT_4G - 1);
	boot_image_close(image);
	boot_guest_free(&guest);
	close(initrd.fd);
}

/* hvm_start_info, by the offsets of Xen's start_info.h. */
static void elf_is_placed(void)
{
	struct boot_guest guest = boot_guest_new(MIB(128));
	struct boot_test_file initrd = boot_file_new("initial", 7, 10000);
	const uint8_t *info = guest.ram + LAYOUT_BOOT_PARAMS, *module;
	struct boot_config config = {.initrd = initrd.path, .cmdline = "console=ttyS0", .rsdp = 0xe0000};
	struct boot_image *image;
	struct boot_entry entry;

	images_make_elf(bytes);
	config.image = image = open_bytes(IMAGES_ELF_SIZE);
	CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
	CHECK_EQ(entry.protocol, BOOT_PVH);
	CHECK_EQ(entry.entry, IMAGES_ELF_ENTRY);
	CHECK_EQ(entry.params, LAYOUT_BOOT_PARAMS);
	CHECK_EQ(get_le64(guest.ram + entry.gdt + LAYOUT_GDT_CODE), 0x00cf9b000000ffff);
	check_elf_segments(&guest);

	CHECK_EQ(get_le32(info), 0x336ec578);
	CHECK_EQ(get_le32(info + 4), 1);
	CHECK_EQ(get_le32(info + 12), 1);
	module = guest.ram + get_le64(info + 16);
	CHECK_EQ(get_le64(module), MIB(128) - 3 * 4096);
	CHECK_EQ(get_le64(module + 8), 10000);
	CHECK_STR((char *)guest.ram + get_le64(module), "initial");
	CHECK_STR((char *)guest.ram + get_le64(info + 24), "console=ttyS0");
	CHECK_EQ(get_le64(info + 32), 0xe0000);

	config.initrd = NULL;
	CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
	CHECK_EQ(get_le32(info + 12), 0);
	boot_image_close(image);
	boot_guest_free(&guest);
	close(initrd.fd);
}

/* One field of a sound kernel is changed; says NULL: it is sound still. */
static void headers_are_checked(void)
{
	static const struct {
		const struct format *format;
		size_t offset, len;
		uint64_t value;
		const char *says;
	} cases[] = {
#define BZ(field, value, says) {&formats[0], offsetof(struct boot_params, hdr.field), \
				sizeof(((struct boot_params *)0)->hdr.field), value, says}
		BZ(boot_flag, 0, "not a kernel"),
		BZ(header, 0, "not a kernel"),
		BZ(version, 0x020b, "too old: boot protocol 2.11"),
		BZ(version, 0x020c, NULL),
		BZ(jump, 0x20eb, "broken setup header: it ends at 0x222"),
		BZ(jump, 0x61eb, "broken setup header: it ends at 0x263"),
		BZ(jump, 0x62eb, NULL), /* the end of init_size */
		BZ(jump, 0xffeb, NULL),
		BZ(loadflags, 0, "zImage"),
		BZ(xloadflags, 2, "wrong architecture: this is a 32-bit kernel"),
		BZ(syssize, 0, "syssize 0 is too small"),
		BZ(syssize, 0x20, "syssize 32 is too small"), /* ends at the entry */
		BZ(syssize, 0x21, NULL),
		BZ(syssize, 0xffffffff, "truncated: the header promises"),
		BZ(setup_sects, 255, "truncated: the header promises"),
		BZ(setup_sects, 0, "truncated: the header promises"), /* means 4 */
		BZ(pref_address, 0x1000, "pref_address 0x1000 is not between"),
		BZ(pref_address, LAYOUT_HIGH - 1, "pref_address 0xfffff is not between"),
		BZ(pref_address, LAYOUT_HIGH, NULL),
		BZ(pref_address, LAYOUT_HOLE, "pref_address 0xc0000000 is not between"),
		BZ(pref_address, UINT64_MAX, "pref_address 0xffffffffffffffff is not between"),
		BZ(kernel_alignment, 0x3000, "kernel_alignment 0x3000 is not a power of two"),
		BZ(kernel_alignment, 0, "kernel_alignment 0x0 is not a power of two"),
#define EHDR(field, value, says) {&formats[1], offsetof(struct images_elf_head, ehdr.field), \
				  sizeof(((Elf64_Ehdr *)0)->field), value, says}
#define PHDR(n, field, value, says) {&formats[1], offsetof(struct images_elf_head, phdrs[n].field), \
				     sizeof(((Elf64_Phdr *)0)->field), value, says}
		{&formats[1], EI_MAG1, 1, 'x', "not a kernel"},
		{&formats[1], EI_CLASS, 1, ELFCLASS32, "wrong architecture: ELF class 1"},
		{&formats[1], EI_DATA, 1, ELFDATA2MSB, "wrong architecture"},
		EHDR(e_machine, EM_AARCH64, "wrong architecture: ELF class 2, machine 183"),
		EHDR(e_type, ET_REL, "not a kernel: an ELF file of type 1"),
		EHDR(e_phentsize, 32, "broken ELF header"),
		EHDR(e_phnum, 0, "broken ELF header"),
		EHDR(e_phnum, 33, "broken ELF header"),
		EHDR(e_phoff, UINT64_MAX, "truncated: the program headers"),
		EHDR(e_phoff, IMAGES_ELF_SIZE - 8, "truncated: the file ends"),
		PHDR(0, p_filesz, 0x7000, "more bytes in the file than in memory"),
		PHDR(0, p_offset, IMAGES_ELF_SIZE - 1, "truncated: the segment at 0x1000010"),
		PHDR(0, p_offset, UINT64_MAX, "truncated: the segment"),
		PHDR(0, p_memsz, 0x3421, NULL),
		PHDR(0, p_memsz, 0x3420, "more bytes in the file than in memory"),
		PHDR(2, p_paddr, LAYOUT_HIGH - 1, "is not between 1 MiB and 3 GiB"),
		PHDR(2, p_paddr, LAYOUT_HIGH, NULL),
		PHDR(2, p_paddr, LAYOUT_HOLE, "is not between 1 MiB and 3 GiB"),
		PHDR(1, p_paddr, LAYOUT_HOLE - 0x1000, NULL),
		PHDR(1, p_paddr, LAYOUT_HOLE - 0x0fff, "is not between 1 MiB and 3 GiB"),
		PHDR(1, p_memsz, UINT64_MAX, "is not between 1 MiB and 3 GiB"),
		PHDR(1, p_offset, UINT64_MAX, "truncated: the segment"),
		PHDR(3, p_type, PT_NULL, "no PVH entry"),
		PHDR(3, p_align, 8, NULL), /* ours begin at multiples of eight */
		PHDR(3, p_offset, UINT64_MAX, "no PVH entry"),
		PHDR(3, p_filesz, 0, "no PVH entry"),
		PHDR(3, p_filesz, 24, "no PVH entry"),
		PHDR(3, p_filesz, 35, "no PVH entry"), /* a note's head does not fit */
		PHDR(3, p_filesz, 36, "broken notes: one at offset 24 ends beyond them"),
		PHDR(3, p_filesz, 40, "broken notes: one at offset 24 ends beyond them"),
		PHDR(3, p_filesz, 0x10001, "broken notes: 65537 bytes"),
		{&formats[1], IMAGES_ELF_NOTE_OFFSET, 4, 0xffffffff, "broken notes: one at offset 0"},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 32, 4, 19, "no PVH entry"},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 28, 4, 5, "broken notes: one at offset 24"},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 28, 4, 2, "no PVH entry"}, /* a description of two bytes */
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 40, 4, 0x2000000, "the entry 0x2000000 lies in no segment"},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 40, 4, IMAGES_ELF_TEXT_GPA - 1, "lies in no segment"},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 40, 4, IMAGES_ELF_TEXT_GPA, NULL},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 40, 4, IMAGES_ELF_TEXT_GPA + IMAGES_ELF_TEXT_MEMORY - 1, NULL},
		{&formats[1], IMAGES_ELF_NOTE_OFFSET + 40, 4, IMAGES_ELF_TEXT_GPA + IMAGES_ELF_TEXT_MEMORY,
		 "lies in no segment"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		make(cases[i].format);
		memcpy(bytes + cases[i].offset, &cases[i].value, cases[i].len);
		if (cases[i].says)
			open_fails(cases[i].format->size, -ENOEXEC, cases[i].says);
		else
			boot_image_close(open_bytes(cases[i].format->size));
	}
}

static void every_truncation_is_noticed(void)
{
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		make(&formats[f]);
		size_t whole = f ? formats[f].size : formats[f].size - 15; /* a bzImage's last paragraph may be short */

		for (size_t len = 0; len < whole; len++) {
			/* The magic, then the rest */
			const char *says = len == 0 ? "empty" : len < (f ? 4 : 0x206) ? "not a kernel" : "";

			open_fails(len, -ENOEXEC, says);
			if (len == 0x300)
				open_fails(len, -ENOEXEC, "truncated");
		}
	}
}

/* The header counts paragraphs of 16 bytes; the file need not fill the last one. */
static void the_last_paragraph_may_be_short(void)
{
	for (size_t missing = 1; missing < 16; missing++) {
		struct boot_guest guest = boot_guest_new(MIB(128));
		struct boot_config config = {.cmdline = ""};
		struct boot_image *image;
		struct boot_entry entry;

		images_make_bz(bytes);
		config.image = image = open_bytes(IMAGES_BZ_SIZE - missing);
		CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
		CHECK(!memcmp(guest.ram + LAYOUT_HIGH, bytes + IMAGES_BZ_SETUP, IMAGES_BZ_PAYLOAD - missing));
		CHECK(all_zero(guest.ram + LAYOUT_HIGH + IMAGES_BZ_PAYLOAD - missing, 4096));
		boot_image_close(image);
		boot_guest_free(&guest);
	}
}

/* Notes as linkers pack them, in a segment of this alignment, and what stands before and behind ours. */
static void the_note_is_found_among_others(void)
{
	enum { XEN = 0x006e6558, GNU = 0x00554e47 };
	static const struct {
		uint64_t align;
		uint32_t notes[16];
		unsigned int words;
		const char *says; /* NULL: it is found */
	} cases[] = {
		/* Packed by 4, though the segment is aligned to 8. */
		{8, {4, 4, 1, GNU, 0, 4, 4, 18, XEN, IMAGES_ELF_ENTRY}, 10, NULL},
		{8, {4, 4, 18, XEN, IMAGES_ELF_ENTRY, 4, 4, 1, GNU, 0}, 10, NULL},
		/* Packed by 8. */
		{8, {4, 4, 1, GNU, 0, 0, 4, 8, 18, XEN, IMAGES_ELF_ENTRY, 0}, 12, NULL},
		{4, {4, 4, 18, XEN, IMAGES_ELF_ENTRY, 4, 999, 1, GNU, 0}, 10, NULL}, /* a bad one behind it */
		{8, {4, 4, 18, XEN, IMAGES_ELF_ENTRY, 0, 4, 999, 1, GNU, 0}, 11, NULL},
		{4, {4, 4, 18, XEN, IMAGES_ELF_ENTRY, 4, 4, 18, XEN, 1}, 10, NULL}, /* the first one counts */
		{4, {4, 999, 1, GNU, 0, 4, 4, 18, XEN, IMAGES_ELF_ENTRY}, 10, "broken notes: one at offset 0"},
		{8, {4, 999, 1, GNU, 0, 4, 4, 18, XEN, IMAGES_ELF_ENTRY}, 10, "broken notes: one at offset 0"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct images_elf_head *head = (struct images_elf_head *)bytes;

		images_make_elf(bytes);
		memcpy(bytes + IMAGES_ELF_NOTE_OFFSET, cases[i].notes, sizeof(cases[i].notes));
		head->phdrs[3].p_align = cases[i].align;
		head->phdrs[3].p_filesz = cases[i].words * 4;
		if (cases[i].says)
			open_fails(IMAGES_ELF_SIZE, -ENOEXEC, cases[i].says);
		else
			boot_image_close(open_bytes(IMAGES_ELF_SIZE));
	}
}

static void other_files_are_recognised(void)
{
	static const struct {
		size_t offset, len;
		const char *magic, *says;
	} cases[] = {
		{56, 4, "ARM\x64", "arm64"},
		{0, 2, "\x1f\x8b", "gzip"},
		{0, 6, "\xfd" "7zXZ\0", "xz"},
		{0, 4, "\x28\xb5\x2f\xfd", "zstd"},
		{0, 6, "070701", "--initrd"},
		{0, 2, "MZ", "EFI program"},
		{0, 5, "hello", "not a kernel: neither"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(bytes, 0, sizeof(bytes));
		memcpy(bytes + cases[i].offset, cases[i].magic, cases[i].len);
		open_fails(100, -ENOEXEC, cases[i].says);
	}
}

static void path_fails(const char *path, int code, const char *says)
{
	struct boot_image *image = NULL;
	struct err err = {""};

	CHECK_EQ(boot_image_open(path, NULL, &image, &err), code);
	CHECK_STR(err.text, says);
	CHECK(!image);
}

static void what_is_no_file_is_refused(void)
{
	char dir[] = "/tmp/test_boot_XXXXXX", fifo[64], says[128];

	CHECK(mkdtemp(dir));
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	CHECK_EQ(mkfifo(fifo, 0600), 0);
	snprintf(says, sizeof(says), "--kernel %s: this is not a file; give a regular file", fifo);
	path_fails(fifo, -EINVAL, says);
	snprintf(says, sizeof(says), "--kernel %s: this is a directory; give a regular file", dir);
	path_fails(dir, -EISDIR, says);
	unlink(fifo);
	rmdir(dir);
	path_fails("/nowhere/vmlinuz", -ENOENT, "--kernel /nowhere/vmlinuz: open: No such file or directory");
}

/* Loads a sound kernel into size bytes of memory; returns boot_load's result. */
static int load(const struct format *format, uint64_t size, const char *initrd, const char *cmdline, struct err *err)
{
	struct boot_guest guest = boot_guest_new(size);
	struct boot_config config = {.initrd = initrd, .cmdline = cmdline};
	struct boot_image *image;
	struct boot_entry entry;
	int ret;

	make(format);
	config.image = image = open_bytes(format->size);
	err->text[0] = 0;
	ret = boot_load(&config, guest.memory, &entry, err);
	boot_image_close(image);
	boot_guest_free(&guest);
	return ret;
}

static void memory_must_suffice(void)
{
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		uint64_t needs = align_up(formats[f].needs, 4096);
		char says[64];
		struct err err;

		CHECK_EQ(load(&formats[f], MIB(1), NULL, "", &err), -ENOSPC);
		CHECK_STR(err.text, "--memory: a guest needs at least 2 MiB");
		CHECK_EQ(load(&formats[f], needs - 4096, NULL, "", &err), -ENOSPC);
		snprintf(says, sizeof(says), "it needs %llu MiB to start; give more --memory",
			 (unsigned long long)(align_up(needs, MIB(1)) >> 20));
		CHECK(strstr(err.text, says) && !strncmp(err.text, "--kernel /proc", 14));
		CHECK_EQ(load(&formats[f], needs, NULL, "", &err), 0);
	}
}

static void initrd_must_fit(void)
{
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		uint64_t room = MIB(128) - align_up(formats[f].needs, 4096);
		struct boot_test_file fits = boot_file_new("", 0, room), big = boot_file_new("", 0, room + 1);
		struct boot_test_file empty = boot_file_new("", 0, 0);
		char says[128];
		struct err err;

		CHECK_EQ(load(&formats[f], MIB(128), fits.path, "", &err), 0);
		CHECK_EQ(load(&formats[f], MIB(128), big.path, "", &err), -ENOSPC);
		snprintf(says, sizeof(says), "--initrd %s: %llu KiB do not fit", big.path,
			 (unsigned long long)(room >> 10));
		CHECK(!strncmp(err.text, says, strlen(says)));
		CHECK_EQ(load(&formats[f], MIB(128), empty.path, "", &err), -EINVAL);
		snprintf(says, sizeof(says), "--initrd %s: the file is empty", empty.path);
		CHECK_STR(err.text, says);
		CHECK_EQ(load(&formats[f], MIB(128), "/nowhere", "", &err), -ENOENT);
		CHECK_STR(err.text, "--initrd /nowhere: open: No such file or directory");
		close(fits.fd);
		close(big.fd);
		close(empty.fd);
	}
}

/* Where nothing has to be kept free beyond the image, the initrd may follow it at once. */
static void initrd_stays_off_the_kernel(void)
{
	uint64_t end = align_up(LAYOUT_HIGH + IMAGES_BZ_SETUP + IMAGES_BZ_PAYLOAD, 4096);

	for (uint64_t size = MIB(64) - end; size <= MIB(64) - end + 1; size++) {
		struct boot_guest guest = boot_guest_new(MIB(64));
		struct boot_test_file initrd = boot_file_new("", 0, size);
		struct boot_config config = {.initrd = initrd.path, .cmdline = ""};
		struct boot_image *image;
		struct boot_entry entry;

		images_make_bz(bytes);
		images_bz_header(bytes)->pref_address = LAYOUT_HIGH;
		images_bz_header(bytes)->kernel_alignment = 0x10;
		images_bz_header(bytes)->init_size = 0;
		config.image = image = open_bytes(IMAGES_BZ_SIZE);
		CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), size == MIB(64) - end ? 0 : -ENOSPC);
		boot_image_close(image);
		boot_guest_free(&guest);
		close(initrd.fd);
	}
}

/* Above initrd_addr_max a kernel does not look. */
static void initrd_stays_below_its_limit(void)
{
	struct boot_guest guest = boot_guest_new(GIB(3));
	struct boot_test_file initrd = boot_file_new("initial", 7, 4097);
	const struct boot_params *params = (void *)(guest.ram + LAYOUT_BOOT_PARAMS);
	struct boot_config config = {.initrd = initrd.path, .cmdline = ""};
	struct boot_image *image;
	struct boot_entry entry;

	images_make_bz(bytes);
	config.image = image = open_bytes(IMAGES_BZ_SIZE);
	CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
	CHECK_EQ(params->hdr.ramdisk_image, 0x7fffe000);
	boot_image_close(image);
	boot_guest_free(&guest);
	close(initrd.fd);
}

static void command_line_has_a_limit(void)
{
	enum { LIMIT = 2047 }; /* Linux takes no more, also by PVH */
	static char line[LIMIT + 2];
	struct err err;

	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		memset(line, 'x', LIMIT);
		line[LIMIT] = 0;
		CHECK_EQ(load(&formats[f], MIB(128), NULL, line, &err), 0);
		line[LIMIT] = 'x';
		CHECK_EQ(load(&formats[f], MIB(128), NULL, line, &err), -E2BIG);
		CHECK_STR(err.text,
			  "--cmdline: 2048 bytes are more than the 2047 this kernel takes; shorten the line");
	}
}

/* A file that shrinks after it was opened. */
static void shrinking_files_are_noticed(void)
{
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		struct boot_guest guest = boot_guest_new(MIB(128));
		struct boot_config config = {.cmdline = ""};
		struct boot_test_file file;
		struct boot_image *image;
		struct boot_entry entry;
		struct err err;

		make(&formats[f]);
		file = boot_file_new(bytes, formats[f].size, formats[f].size);
		CHECK_EQ(boot_image_open(file.path, NULL, &image, NULL), 0);
		config.image = image;
		CHECK_EQ(ftruncate(file.fd, 0x1400), 0);
		CHECK_EQ(boot_load(&config, guest.memory, &entry, &err), -ENOEXEC);
		CHECK(strstr(err.text, "truncated: the file ends at offset 5120"));
		CHECK(!strncmp(err.text, "--kernel /proc", 14));
		boot_image_close(image);
		boot_guest_free(&guest);
		close(file.fd);
	}
}

/* What happens to a file once it was loaded is not the guest's matter. */
static void files_may_change_once_they_are_loaded(void)
{
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		struct boot_guest guest = boot_guest_new(MIB(128));
		struct boot_test_file file, initrd = boot_file_new("initial", 7, 4097);
		struct boot_config config = {.cmdline = "", .initrd = initrd.path};
		struct boot_image *image;
		struct boot_entry entry;

		make(&formats[f]);
		file = boot_file_new(bytes, formats[f].size, formats[f].size);
		CHECK_EQ(boot_image_open(file.path, NULL, &image, NULL), 0);
		config.image = image;
		CHECK_EQ(boot_load(&config, guest.memory, &entry, NULL), 0);
		CHECK_EQ(ftruncate(file.fd, 0), 0);
		CHECK_EQ(pwrite(initrd.fd, "changed", 7, 0), 7);
		CHECK_EQ(ftruncate(initrd.fd, 7), 0);
		check_payload(&formats[f], &guest);
		CHECK(!memcmp(guest.ram + MIB(128) - 8192, "initial", 8));
		boot_image_close(image);
		boot_guest_free(&guest);
		close(file.fd);
		close(initrd.fd);
	}
}

TEST_MAIN(TEST(bzimage_is_placed), TEST(elf_is_placed), TEST(headers_are_checked),
	  TEST(every_truncation_is_noticed), TEST(the_last_paragraph_may_be_short),
	  TEST(the_note_is_found_among_others), TEST(other_files_are_recognised),
	  TEST(what_is_no_file_is_refused), TEST(memory_must_suffice), TEST(initrd_must_fit),
	  TEST(initrd_stays_off_the_kernel), TEST(initrd_stays_below_its_limit), TEST(command_line_has_a_limit),
	  TEST(shrinking_files_are_noticed), TEST(files_may_change_once_they_are_loaded))
