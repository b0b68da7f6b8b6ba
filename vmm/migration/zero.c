/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See zero.h. For private anonymous memory, an entry of /proc/self/pagemap that is neither present nor swapped has no
 * page. In a mapped file (a kernel image) such an entry means the file's data, so /proc/self/maps is read to find these
 * ranges. A memfd may have pages that this process has never mapped, so its holes are found with SEEK_DATA. hugetlbfs
 * does not report holes; its pages are read.
 *
 * Of a region over a file (region->base) a page is one of three: gone, which is anonymous memory; this process's own
 * copy, which pagemap shows as present and not of a file; or else as in the file, whose holes are zero. What comes from
 * elsewhere is never taken for zero.
 */
#include "vmm/migration/zero.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "core/bitmap.h"

#define PAGE 4096u
#define ENTRY_THERE (3ull << 62) /* present, or swapped */
#define ENTRY_FILE (1ull << 61)  /* a file's page, or shared */

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

/* Sets the bits of those of the count pages from start that lie in holes of the file. */
static void zero_holes(int fd, uint64_t start, size_t count, unsigned long *holes)
{
	uint64_t end = start + count * PAGE;

	for (uint64_t at = start; at < end;) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		uint64_t hole_end = data < 0 && errno == ENXIO ? end : data < 0 ? at : MIN((uint64_t)data, end);

		for (; at + PAGE <= hole_end; at += PAGE)
			bitmap_set(holes, (at - start) / PAGE);
		if (hole_end >= end || data < 0)
			return;
		data = lseek(fd, data, SEEK_HOLE);
		if (data < 0)
			return;
		at = align_up((uint64_t)data, PAGE);
	}
}

static void zero_absent_memfd(const struct guest_region *region, uint64_t offset, size_t count, unsigned long *absent)
{
	struct statfs fs;

	if (fstatfs(region->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
		zero_holes(region->fd, region->fd_offset + offset, count, absent);
}

/* The pagemap entries of a region's pages; false if they cannot be read. */
static bool zero_entries(const struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
			 uint64_t *entries)
{
	uintptr_t page = ((uintptr_t)region->host + offset) / PAGE;
	size_t size = count * sizeof(*entries);

	return map->pagemap_fd >= 0 &&
	       pread(map->pagemap_fd, entries, size, (off_t)(page * sizeof(*entries))) == (ssize_t)size;
}

static void zero_absent_based(const struct zero_map *map, const struct guest_region *region, uint64_t offset,
			      size_t count, unsigned long *absent)
{
	const unsigned long *gone = __atomic_load_n(&region->base->gone, __ATOMIC_ACQUIRE);
	unsigned long holes[ZERO_MAP_PAGES / BITS_PER_LONG] = {0};
	uint64_t entries[ZERO_MAP_PAGES];

	if (region->base->fd < 0 || !zero_entries(map, region, offset, count, entries))
		return;
	zero_holes(region->base->fd, region->base->offset + offset, count, holes);
	for (size_t i = 0; i < count; i++) {
		bool own = entries[i] & ENTRY_THERE && !(entries[i] & ENTRY_FILE);

		if (!own && ((gone && bitmap_test(gone, offset / PAGE + i)) || bitmap_test(holes, i)))
			bitmap_set(absent, i);
	}
}

void zero_map_absent(const struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		     unsigned long *absent)
{
	if (region->base)
		zero_absent_based(map, region, offset, count, absent);
	else if (region->fd >= 0)
		zero_absent_memfd(region, offset, count, absent);
	else if (map->pagemap_fd >= 0)
		zero_absent_anonymous(map, (uintptr_t)region->host + offset, count, absent);
}

void zero_map_own(const struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		  unsigned long *own)
{
	const struct guest_file *base = region->base;
	const unsigned long *gone = base ? __atomic_load_n(&base->gone, __ATOMIC_ACQUIRE) : NULL;
	uint64_t entries[ZERO_MAP_PAGES];
	bool known = base && base->fd >= 0 && zero_entries(map, region, offset, count, entries);

	for (size_t i = 0; i < count; i++)
		if (!known || (entries[i] & ENTRY_THERE && !(entries[i] & ENTRY_FILE)) ||
		    (gone && bitmap_test(gone, offset / PAGE + i)))
			bitmap_set(own, i);
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
