/* SPDX-License-Identifier: Apache-2.0 */
/* See place_x86.h. Called by bzimage_x86.c and elf_pvh_x86.c. */
#include "boot/place_x86.h"

#define LOW_RAM_MIN 0x200000ull

/* What is never RAM for the guest, whatever guest memory holds there. */
static const struct place_range reserved[] = {
	{LAYOUT_EBDA, 0xa0000 - LAYOUT_EBDA, PLACE_RESERVED},
	{LAYOUT_ACPI, LAYOUT_ACPI_SIZE, PLACE_RESERVED},
	{LAYOUT_ECAM, LAYOUT_ECAM_SIZE, PLACE_RESERVED},
	{LAYOUT_KVM_IDENTITY, LAYOUT_KVM_TSS + 3 * GUEST_PAGE_SIZE - LAYOUT_KVM_IDENTITY, PLACE_RESERVED},
};

/* Where guest memory is RAM; memory regions elsewhere are not a kernel's to use. */
static const struct place_range windows[] = {
	{0, LAYOUT_EBDA, PLACE_RAM},
	{LAYOUT_HIGH, LAYOUT_HOLE - LAYOUT_HIGH, PLACE_RAM},
	{LAYOUT_4G, UINT64_MAX - LAYOUT_4G, PLACE_RAM},
};

static int place_map_add(struct place_map *map, struct place_range range)
{
	struct place_range *last = map->count ? &map->ranges[map->count - 1] : NULL;

	if (last && last->type == range.type && last->start + last->size == range.start) {
		last->size += range.size;
		return 0;
	}
	if (map->count == PLACE_RANGES_MAX)
		return -ENOSPC;
	map->ranges[map->count++] = range;
	return 0;
}

static int place_compare_ranges(const void *a, const void *b)
{
	const struct place_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static int place_map_memory(const struct guest_memory *memory, struct place_map *ret, struct err *err)
{
	struct place_map map = {.count = 0};
	const struct guest_region *regions;
	size_t count;
	int r = 0;

	regions = guest_memory_regions(memory, &count);
	for (size_t i = 0; i < count; i++) {
		for (size_t w = 0; w < ARRAY_SIZE(windows); w++) {
			uint64_t start = MAX(regions[i].gpa, windows[w].start);
			uint64_t end = MIN(regions[i].gpa + regions[i].size, windows[w].start + windows[w].size);

			if (start < end && r == 0)
				r = place_map_add(&map, (struct place_range){start, end - start, PLACE_RAM});
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(reserved) && r == 0; i++)
		r = place_map_add(&map, reserved[i]);
	if (r < 0)
		return err_set(err, r, "guest memory is in more than %u pieces", PLACE_RANGES_MAX);
	qsort(map.ranges, map.count, sizeof(map.ranges[0]), place_compare_ranges);
	if (!guest_memory_at(memory, 0, LOW_RAM_MIN))
		return err_set(err, -ENOSPC, "--memory: a guest needs at least %llu MiB", LOW_RAM_MIN >> 20);
	*ret = map;
	return 0;
}

/* The first address above LAYOUT_HIGH that is not RAM. */
static uint64_t place_low_end(const struct place_map *map)
{
	for (size_t i = 0; i < map->count; i++)
		if (map->ranges[i].start == LAYOUT_HIGH && map->ranges[i].type == PLACE_RAM)
			return LAYOUT_HIGH + map->ranges[i].size;
	return LAYOUT_HIGH;
}

int place_memory_map(const struct boot_file *file, const struct guest_memory *memory, uint64_t end,
		     struct place_map *ret, uint64_t *ret_top, struct err *err)
{
	struct place_map map;
	uint64_t top;
	int r = place_map_memory(memory, &map, err);

	if (r < 0)
		return r;
	top = place_low_end(&map);
	if (end > top)
		return err_set(err, -ENOSPC, "--kernel %s: it needs %llu MiB to start; give more --memory", file->path,
			       (unsigned long long)(align_up(end, MIB(1)) >> 20));
	*ret = map;
	*ret_top = top;
	return 0;
}

int place_write(struct guest_memory *memory, uint64_t gpa, const void *data, size_t len, struct err *err)
{
	if (guest_memory_write(memory, gpa, data, len) < 0)
		return err_set(err, -ENOSPC, "--memory: there is none at 0x%llx", (unsigned long long)gpa);
	return 0;
}

int place_cmdline(struct guest_memory *memory, const char *cmdline, uint64_t limit, struct err *err)
{
	size_t len = strlen(cmdline);

	limit = MIN(limit, LAYOUT_CMDLINE_SIZE - 1);
	if (len > limit)
		return err_set(err, -E2BIG,
			       "--cmdline: %zu bytes are more than the %llu this kernel takes; shorten the line",
			       len, (unsigned long long)limit);
	return place_write(memory, LAYOUT_CMDLINE, cmdline, len + 1, err);
}

int place_initrd(const struct boot_config *config, struct guest_memory *memory, uint64_t bottom, uint64_t top,
		 uint64_t *gpa, uint64_t *size, struct err *err)
{
	const char *path = config->initrd;
	_cleanup_(fd_close) int fd = -1;
	uint64_t len, start;
	int ret;

	if (!path) {
		*gpa = 0;
		*size = 0;
		return 0;
	}
	ret = boot_open_file("--initrd", path, config->initrd_file, &fd, &len, err);
	if (ret < 0)
		return ret;
	if (!len)
		return err_set(err, -EINVAL, "--initrd %s: the file is empty", path);
	start = len < top ? align_down(top - len, GUEST_PAGE_SIZE) : 0;
	if (start < bottom)
		return err_set(err, -ENOSPC,
			       "--initrd %s: %llu KiB do not fit into the %llu KiB that the kernel leaves; give more "
			       "--memory", path, (unsigned long long)(len >> 10),
			       (unsigned long long)((top - MIN(top, bottom)) >> 10));
	ret = boot_read_to_guest(fd, 0, memory, start, len, err);
	if (ret < 0)
		return err_prefix(err, ret, "--initrd %s", path);
	*gpa = start;
	*size = len;
	return 0;
}

int place_gdt(struct guest_memory *memory, bool code64, struct err *err)
{
	uint8_t gdt[LAYOUT_GDT_SIZE] = {0};

	/* Flat, present, ring 0; code: execute and read, accessed; data: read and write, accessed; a busy 32-bit TSS
	 * of limit 0x67 at 0 (Intel SDM volume 3, 3.4.5). */
	put_le64(gdt + LAYOUT_GDT_CODE, code64 ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
	put_le64(gdt + LAYOUT_GDT_DATA, 0x00cf93000000ffff);
	put_le64(gdt + LAYOUT_GDT_TSS, 0x00008b0000000067);
	return place_write(memory, LAYOUT_GDT, gdt, sizeof(gdt), err);
}

int place_page_tables(struct guest_memory *memory, struct err *err)
{
	enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80, ENTRIES = 512, DIRECTORIES = 4 };
	const uint64_t pdpt = LAYOUT_PAGE_TABLES + GUEST_PAGE_SIZE, directory = pdpt + GUEST_PAGE_SIZE;
	uint64_t table[ENTRIES] = {htole64(pdpt | PRESENT | WRITABLE)};
	int ret = place_write(memory, LAYOUT_PAGE_TABLES, table, sizeof(table), err);

	for (uint64_t i = 0; i < DIRECTORIES; i++)
		table[i] = htole64((directory + i * GUEST_PAGE_SIZE) | PRESENT | WRITABLE);
	if (ret == 0)
		ret = place_write(memory, pdpt, table, sizeof(table), err);
	for (uint64_t d = 0; d < DIRECTORIES && ret == 0; d++) {
		for (uint64_t i = 0; i < ENTRIES; i++)
			table[i] = htole64(MIB(2) * (d * ENTRIES + i) | PRESENT | WRITABLE | LARGE);
		ret = place_write(memory, directory + d * GUEST_PAGE_SIZE, table, sizeof(table), err);
	}
	return ret;
}
