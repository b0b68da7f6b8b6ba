/* SPDX-License-Identifier: Apache-2.0 */
/* See pagemap.h. Layouts and numbers are those of include/uapi/linux/fs.h, which older headers do not have. */
#include "core/pagemap.h"

#include "core/errand.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#define PAGE 4096u
#define ENTRIES 1024u /* read at once */

/* Bits of an entry. */
#define ENTRY_THERE (3ull << 62) /* present, or swapped */
#define ENTRY_FILE (1ull << 61)  /* a page of a file, or shared */

struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, all_of, any_of, wanted; /* masks of categories */
};

struct scan_region {
	uint64_t start, end, categories;
};

#define PAGEMAP_IOC_SCAN _IOWR('f', 16, struct scan)
#define CATEGORY_FILE (1u << 2)
#define CATEGORY_PRESENT (1u << 3)
#define CATEGORY_SWAPPED (1u << 4)
#define CATEGORY_ZERO (1u << 5)
#define SCAN_REGIONS 64u

_Static_assert(sizeof(struct scan) == 96 && sizeof(struct scan_region) == 24, "the kernel's layout");

int pagemap_open(struct pagemap *map)
{
	int fd = errand_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);

	*map = (struct pagemap){.fd = fd};
	return fd < 0 ? -errno : 0;
}

void pagemap_close(struct pagemap *map)
{
	fd_close(&map->fd);
}

static ssize_t pagemap_scan_ioctl(const struct pagemap *map, enum pagemap_kind kind, uintptr_t *at, uintptr_t end,
				  struct pagemap_range *ranges, size_t room)
{
	struct scan_region regions[SCAN_REGIONS];
	uint64_t without = kind == PAGEMAP_OWN ? CATEGORY_FILE : CATEGORY_ZERO;
	struct scan scan = {
		.size = sizeof(scan), .start = *at, .end = end,
		.vec = (uintptr_t)regions, .vec_len = MIN(room, SCAN_REGIONS),
		.inverted = without, .all_of = without, .any_of = CATEGORY_PRESENT | CATEGORY_SWAPPED,
	};
	int n = ioctl(map->fd, PAGEMAP_IOC_SCAN, &scan);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		ranges[i] = (struct pagemap_range){regions[i].start, regions[i].end};
	*at = scan.walk_end;
	return n;
}

static bool pagemap_is_of(enum pagemap_kind kind, uint64_t entry)
{
	return entry & ENTRY_THERE && !(kind == PAGEMAP_OWN && entry & ENTRY_FILE);
}

/* Adds the pages of the entries from *at; false when there is no room for one: it is at *at. */
static bool pagemap_add_entries(enum pagemap_kind kind, uintptr_t *at, const uint64_t *entries, size_t count,
				struct pagemap_range *ranges, size_t room, size_t *found)
{
	for (size_t i = 0; i < count; i++, *at += PAGE) {
		if (!pagemap_is_of(kind, entries[i]))
			continue;
		if (*found && ranges[*found - 1].end == *at) {
			ranges[*found - 1].end += PAGE;
			continue;
		}
		if (*found == room)
			return false;
		ranges[(*found)++] = (struct pagemap_range){*at, *at + PAGE};
	}
	return true;
}

static ssize_t pagemap_read(const struct pagemap *map, enum pagemap_kind kind, uintptr_t *at, uintptr_t end,
			    struct pagemap_range *ranges, size_t room)
{
	uint64_t entries[ENTRIES];
	size_t found = 0;

	while (*at < end) {
		size_t count = MIN((end - *at) / PAGE, ENTRIES);
		ssize_t n = pread(map->fd, entries, count * sizeof(entries[0]),
				  (off_t)(*at / PAGE * sizeof(entries[0])));

		if (n < (ssize_t)sizeof(entries[0]))
			return n < 0 ? -errno : -EIO;
		if (!pagemap_add_entries(kind, at, entries, (size_t)n / sizeof(entries[0]), ranges, room, &found))
			break;
	}
	return (ssize_t)found;
}

ssize_t pagemap_scan(struct pagemap *map, enum pagemap_kind kind, uintptr_t *at, uintptr_t end,
		     struct pagemap_range *ranges, size_t room)
{
	if (!__atomic_load_n(&map->no_scan, __ATOMIC_RELAXED)) {
		ssize_t n = pagemap_scan_ioctl(map, kind, at, end, ranges, room);

		if (n != -ENOTTY && n != -EINVAL)
			return n;
		__atomic_store_n(&map->no_scan, true, __ATOMIC_RELAXED);
	}
	return pagemap_read(map, kind, at, end, ranges, room);
}
