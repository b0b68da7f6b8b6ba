/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See zero.h. Of private anonymous memory, a page that is neither present nor swapped was never written. In a mapped
 * file (a kernel image) such a page has the file's data, so /proc/self/maps is read to find these ranges. A memfd may
 * have pages that this process has never mapped, so its holes are found with SEEK_DATA. hugetlbfs does not report
 * holes; its pages are read.
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
#include "core/errand.h"
#include "core/pagemap.h"

#define PAGE 4096u
#define RANGES 64u /* of pages that are there, found at once */

struct span {
	uintptr_t start, end;
};

struct zero_map {
	struct pagemap pagemap;
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
	FILE *file = errand_fopen("/proc/self/maps");
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
	pagemap_open(&map->pagemap);
	*ret = map;
	return 0;
}

void zero_map_destroy(struct zero_map *map)
{
	if (!map)
		return;
	pagemap_close(&map->pagemap);
	free(map->spans);
	free(map);
}

/* How many bytes from host are private anonymous memory. */
static uint64_t zero_anonymous_bytes(const struct zero_map *map, uintptr_t host)
{
	for (size_t i = 0; i < map->span_count; i++)
		if (host >= map->spans[i].start && host < map->spans[i].end)
			return map->spans[i].end - host;
	return 0;
}

/* Sets the bits of what is not there in [start, end), which is anonymous; bit 0 is the page at host. */
static void zero_absent_span(struct zero_map *map, uintptr_t host, uintptr_t start, uintptr_t end, unsigned long *absent)
{
	struct pagemap_range ranges[RANGES];
	uintptr_t at = start;

	while (at < end) {
		ssize_t n = pagemap_scan(&map->pagemap, PAGEMAP_THERE, &at, end, ranges, RANGES);

		if (n < 0)
			return;
		for (ssize_t i = 0; i < n; i++) {
			bitmap_set_range(absent, (start - host) / PAGE, (ranges[i].start - start) / PAGE);
			start = ranges[i].end;
		}
		bitmap_set_range(absent, (start - host) / PAGE, (at - start) / PAGE);
		start = at;
	}
}

static void zero_absent_anonymous(struct zero_map *map, uintptr_t host, size_t count, unsigned long *absent)
{
	uintptr_t end = host + count * PAGE;

	for (uintptr_t at = host; at < end;) {
		uint64_t bytes = MIN(zero_anonymous_bytes(map, at), end - at);

		if (bytes)
			zero_absent_span(map, host, at, at + bytes, absent);
		at += bytes ?: PAGE;
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

/* Sets the bits of this process's own pages among the count of a region over a file; false if they are not known. */
static bool zero_own(struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		     unsigned long *own)
{
	uintptr_t host = (uintptr_t)region->host + offset, at = host, end = host + count * PAGE;
	struct pagemap_range ranges[RANGES];

	while (at < end) {
		ssize_t n = pagemap_scan(&map->pagemap, PAGEMAP_OWN, &at, end, ranges, RANGES);

		if (n < 0)
			return false;
		for (ssize_t i = 0; i < n; i++)
			bitmap_set_range(own, (ranges[i].start - host) / PAGE,
					 (ranges[i].end - ranges[i].start) / PAGE);
	}
	return true;
}

static void zero_absent_based(struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
			      unsigned long *absent)
{
	const unsigned long *gone = __atomic_load_n(&region->base->gone, __ATOMIC_ACQUIRE);
	unsigned long holes[ZERO_MAP_PAGES / BITS_PER_LONG] = {0}, own[ZERO_MAP_PAGES / BITS_PER_LONG] = {0};

	if (region->base->fd < 0 || !zero_own(map, region, offset, count, own))
		return;
	zero_holes(region->base->fd, region->base->offset + offset, count, holes);
	for (size_t i = 0; i < count; i++)
		if (!bitmap_test(own, i) &&
		    ((gone && bitmap_test(gone, offset / PAGE + i)) || bitmap_test(holes, i)))
			bitmap_set(absent, i);
}

/* The first page with data of a region's file at or behind offset in the region, which is at start in the file. */
static uint64_t zero_next_data(const struct guest_region *region, int fd, uint64_t start, uint64_t offset)
{
	off_t data = lseek(fd, (off_t)(start + offset), SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? region->size : offset;
	return MIN(align_down((uint64_t)data, PAGE) - start, region->size);
}

static uint64_t zero_next_based(struct zero_map *map, const struct guest_region *region, uint64_t offset)
{
	const struct guest_file *base = region->base;
	uint64_t data = base->fd < 0 ? offset : zero_next_data(region, base->fd, base->offset, offset);
	uintptr_t host = (uintptr_t)region->host, at = host + offset, end = host + data;
	struct pagemap_range own;
	ssize_t n = 0;

	while (!n && at < end)
		n = pagemap_scan(&map->pagemap, PAGEMAP_OWN, &at, end, &own, 1);
	return n < 0 ? offset : n ? own.start - host : data;
}

static uint64_t zero_next_anonymous(struct zero_map *map, const struct guest_region *region, uint64_t offset)
{
	uintptr_t host = (uintptr_t)region->host, at = host + offset, end = host + region->size;

	while (at < end) {
		uint64_t bytes = MIN(zero_anonymous_bytes(map, at), end - at);
		uintptr_t stop = at + bytes;
		struct pagemap_range range;
		ssize_t n = bytes ? pagemap_scan(&map->pagemap, PAGEMAP_THERE, &at, stop, &range, 1) : -ENOENT;

		if (n)
			return (n < 0 ? at : range.start) - host;
	}
	return region->size;
}

uint64_t zero_map_next(struct zero_map *map, const struct guest_region *region, uint64_t offset)
{
	if (offset >= region->size)
		return region->size;
	if (region->base)
		return zero_next_based(map, region, offset);
	return region->fd >= 0 ? zero_next_data(region, region->fd, region->fd_offset, offset) :
				 zero_next_anonymous(map, region, offset);
}

void zero_map_absent(struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		     unsigned long *absent)
{
	if (region->base)
		zero_absent_based(map, region, offset, count, absent);
	else if (region->fd >= 0)
		zero_absent_memfd(region, offset, count, absent);
	else
		zero_absent_anonymous(map, (uintptr_t)region->host + offset, count, absent);
}

void zero_map_own(struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		  unsigned long *own)
{
	const struct guest_file *base = region->base;
	const unsigned long *gone = base ? __atomic_load_n(&base->gone, __ATOMIC_ACQUIRE) : NULL;

	if (!base || base->fd < 0 || !zero_own(map, region, offset, count, own))
		bitmap_set_range(own, 0, count);
	for (size_t i = 0; gone && i < count; i++)
		if (bitmap_test(gone, offset / PAGE + i))
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

bool zero_next_run(const void *host, size_t count, const unsigned long *marks, const unsigned long *absent,
		   struct zero_run *run)
{
	const uint8_t *pages = host;
	size_t at = run->end;

	while (at < count && !bitmap_test(marks, at))
		at++;
	if (at >= count)
		return false;
	*run = (struct zero_run){.first = at, .end = at + 1, .zero = bitmap_test(absent, at) || zero_page(pages + at * PAGE)};
	while (run->end < count && bitmap_test(marks, run->end) &&
	       (bitmap_test(absent, run->end) || zero_page(pages + run->end * PAGE)) == run->zero)
		run->end++;
	return true;
}
