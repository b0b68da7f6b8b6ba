/* SPDX-License-Identifier: Apache-2.0 */
/* core/pagemap: what was touched is found, by the ioctl and by the entries alike; pages of a private mapping are told apart. */
#include "core/pagemap.h"
#include "tests/unit/test.h"

#include <sys/mman.h>

#define PAGE 4096u
#define PAGES 3000u

static uint8_t *base;
static struct pagemap map;

/* The pages found, by calls with this room; each page once, in order. */
static size_t scan(enum pagemap_kind kind, size_t room, bool found[PAGES])
{
	uintptr_t at = (uintptr_t)base, end = at + PAGES * PAGE;
	size_t count = 0;

	memset(found, 0, PAGES * sizeof(*found));
	while (at < end) {
		struct pagemap_range ranges[64];
		uintptr_t before = at;
		ssize_t n = pagemap_scan(&map, kind, &at, end, ranges, room);

		CHECK(n >= 0 && (size_t)n <= room);
		CHECK(at > before && at <= end);
		for (ssize_t i = 0; i < n; i++) {
			CHECK(ranges[i].start >= before && ranges[i].start < ranges[i].end && ranges[i].end <= at);
			before = ranges[i].end;
			for (uintptr_t page = ranges[i].start; page < ranges[i].end; page += PAGE, count++)
				found[(page - (uintptr_t)base) / PAGE] = true;
		}
	}
	return count;
}

static const size_t places[] = {0, 1, 5, 511, 512, 1023, 1024, 1030, 2047, 2500, PAGES - 1};

static void check_scans(enum pagemap_kind kind)
{
	static const size_t rooms[] = {1, 2, 64};
	static bool found[PAGES];

	for (size_t i = 0; i < ARRAY_SIZE(rooms) * 2; i++) {
		map.no_scan = i % 2;
		CHECK_EQ(scan(kind, rooms[i / 2], found), ARRAY_SIZE(places));
		for (size_t n = 0; n < ARRAY_SIZE(places); n++)
			CHECK(found[places[n]]);
	}
}

static void touched_pages_are_found(void)
{
	base = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(base, PAGES * PAGE, MADV_NOHUGEPAGE);
	CHECK_EQ(pagemap_open(&map), 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		base[places[i] * PAGE] = 1;
	check_scans(PAGEMAP_THERE);
	check_scans(PAGEMAP_OWN);
	pagemap_close(&map);
	munmap(base, PAGES * PAGE);
}

static void only_written_pages_of_a_private_mapping_are_its_own(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	uint8_t sum = 0;

	CHECK_EQ(ftruncate(fd, PAGES * PAGE), 0);
	CHECK_EQ(pwrite(fd, "x", 1, 7 * PAGE), 1);
	base = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK_EQ(pagemap_open(&map), 0);
	for (size_t page = 0; page < PAGES; page += 3)
		sum |= base[page * PAGE];
	CHECK_EQ(sum, 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		base[places[i] * PAGE] = 1;
	check_scans(PAGEMAP_OWN);
	pagemap_close(&map);
	munmap(base, PAGES * PAGE);
	close(fd);
}

static void without_proc_it_is_an_error(void)
{
	struct pagemap_range range;
	uintptr_t at = PAGE;

	map = (struct pagemap){.fd = -1};
	CHECK_EQ(pagemap_scan(&map, PAGEMAP_THERE, &at, 2 * PAGE, &range, 1), -EBADF);
	map.no_scan = true;
	CHECK_EQ(pagemap_scan(&map, PAGEMAP_THERE, &at, 2 * PAGE, &range, 1), -EBADF);
}

TEST_MAIN(TEST(touched_pages_are_found), TEST(only_written_pages_of_a_private_mapping_are_its_own),
	  TEST(without_proc_it_is_an_error))
