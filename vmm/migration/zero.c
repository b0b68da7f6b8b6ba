/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See zero.h. For private anonymous memory, an entry of /proc/self/pagemap that is neither present nor swapped has no
 * page. In a mapped file (a kernel image) such an entry means the file's data, so /proc/self/maps is read to find these
 * ranges. A memfd may have pages that this process has never mapped, so its holes are found with SEEK_DATA. hugetlbfs
 * does not report holes; its pages are read.
 */
#include "vmm/migration/zero.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "core/bitmap.h"

#define PAGE 4096u
#define ENTRY_THERE (3ull << 62) /* present, or swapped */

struct span {
	uintptr_t start, end;
};

struct zero_map {
	int pagemap_fd;
	struct span *spans; /* private anonymous memory */
	size_t span_count, span_room;
};

static int zero_add_span(struct zero_map *map, struct span span)
{
	struct span *last = map->span_count ? &map->spans[map->span_count - 1] : NULL;

	if (last && last->end == span.start) {
		last->end = span.end;
		return 0;
	}
	if (map->span_count == map->span_room) {
		size_t room = map->span_room * 2 ?: 64;
		struct span *grown = reallocarray(map->spans, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		map->spans = grown;
		map->span_room = room;
	}
	map->spans[map->span_count++] = span;
	return 0;
}

/*
 * A line of /proc/self/maps: the kernel gives anonymous memory of huge pages a file too, with this name and on a device
 * 0:N that no visible file system has.
 */
static bool zero_parse_line(const char *line, struct span *span)
{
	unsigned long start, end, inode;
	unsigned int major, minor;
	char rights[5], path[64] = "";

	if (sscanf(line, "%lx-%lx %4s %*x %x:%x %lu %63[^\n]", &start, &end, rights, &major, &minor, &inode, path) < 6 ||
	    rights[3] != 'p')
		return false;
	if (inode && (major || strcmp(path, "/anon_hugepage (deleted)") != 0 || (start | end) % MIB(2)))
		return false;
	*span = (struct span){start, end};
	return true;
}

static bool zero_holds_region(const struct guest_memory *memory, struct span span)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);

	for (size_t i = 0; i < count; i++)
		if (ranges_overlap(span.start, span.end - span.start, (uintptr_t)regions[i].host, regions[i].size))
			return true;
	return false;
}

static int zero_read_maps(const struct guest_memory *memory, struct zero_map *map)
{
	FILE *file = fopen("/proc/self/maps", "re");
	struct span span;
	char *line = NULL;
	size_t room = 0;
	int code = 0;

	while (file && !code && getline(&line, &room, file) > 0)
		if (zero_parse_line(line, &span) && zero_holds_region(memory, span))
			code = zero_add_span(map, span);
	free(line);
	if (file)
		fclose(file);
	return code;
}

int zero_map_create(const struct guest_memory *memory, struct zero_map **ret, struct err *err)
{
	struct zero_map *map = calloc(1, sizeof(*map));
	int code = map ? zero_read_maps(memory, map) : -ENOMEM;

	if (code) {
		zero_map_destroy(map);
		return err_sys(err, code, "memory's mappings");
	}
	map->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	*ret = map;
	return 0;
}

void zero_map_destroy(struct zero_map *map)
{
	if (!map)
		return;
	fd_close(&map->pagemap_fd);
	free(map->spans);
	free(map);
}

/* How many of the count pages at host are private anonymous memory. */
static size_t zero_anonymous_pages(const struct zero_map *map, uintptr_t host, size_t count)
{
	for (size_t i = 0; i < map->span_count; i++)
		if (host >= map->spans[i].start && host < map->spans[i].end)
			return MIN(count, (size_t)(map->spans[i].end - host) / PAGE);
	return 0;
}

static void zero_absent_anonymous(const struct zero_map *map, uintptr_t host, size_t count, unsigned long *absent)
{
	uint64_t entries[ZERO_MAP_PAGES];
	ssize_t n;

	for (size_t at = 0; at < count;) {
		size_t pages = zero_anonymous_pages(map, host + at * PAGE, count - at);

		if (!pages) {
			at++;
			continue;
		}
		n = pread(map->pagemap_fd, entries, pages * sizeof(entries[0]),
			  (off_t)((host / PAGE + at) * sizeof(entries[0])));
		if (n <= 0)
			return;
		for (size_t i = 0; i < (size_t)n / sizeof(entries[0]); i++)
			if (!(entries[i] & ENTRY_THERE))
				bitmap_set(absent, at + i);
		at += pages;
	}
}

static void zero_absent_memfd(const struct guest_region *region, uint64_t offset, size_t count, unsigned long *absent)
{
	uint64_t start = region->fd_offset + offset, end = start + count * PAGE;
	struct statfs fs;

	if (fstatfs(region->fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		return;
	for (uint64_t at = start; at < end;) {
		off_t data = lseek(region->fd, (off_t)at, SEEK_DATA);
		uint64_t hole_end = data < 0 && errno == ENXIO ? end : data < 0 ? at : MIN((uint64_t)data, end);

		for (; at < hole_end; at += PAGE)
			bitmap_set(absent, (at - start) / PAGE);
		if (at >= end || data < 0)
			return;
		data = lseek(region->fd, (off_t)at, SEEK_HOLE);
		if (data < 0)
			return;
		at = (uint64_t)data;
	}
}

void zero_map_absent(const struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		     unsigned long *absent)
{
	if (region->fd >= 0)
		zero_absent_memfd(region, offset, count, absent);
	else if (map->pagemap_fd >= 0)
		zero_absent_anonymous(map, (uintptr_t)region->host + offset, count, absent);
}

/* The first words differ in most pages; the rest is compared in blocks that the compiler vectorizes. */
bool zero_page(const void *page)
{
	const uint64_t *words = page;

	if (words[0] | words[1] | words[PAGE / 16] | words[PAGE / 8 - 1])
		return false;
	for (size_t i = 0; i < PAGE / 8; i += 32) {
		uint64_t any = 0;

		for (size_t n = 0; n < 32; n++)
			any |= words[i + n];
		if (any)
			return false;
	}
	return true;
}
