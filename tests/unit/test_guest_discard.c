/* SPDX-License-Identifier: Apache-2.0 */
/* core/guest_discard: memory of every kind reads as zeros when it was given back, and only what was given back. */
#include "core/guest_discard.h"

#include "core/bitmap.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE GUEST_PAGE_SIZE
#define PAGES 64u
#define SIZE (PAGES * PAGE)

static struct guest_file base;
static struct guest_region region;
static int file = -1;

static void tear_down(void)
{
	if (region.host)
		munmap(region.host, SIZE);
	free(base.gone);
	fd_close(&file);
	region = (struct guest_region){.fd = -1};
	base = (struct guest_file){.fd = -1};
}

/* Memory of the byte 0xaa: private; a memfd; or a private mapping of a file. */
static void set_up(bool shared, bool over_file)
{
	static char bytes[SIZE];

	tear_down();
	memset(bytes, 0xaa, sizeof(bytes));
	file = memfd_create("memory", MFD_CLOEXEC);
	CHECK_EQ(write(file, bytes, SIZE), SIZE);
	if (shared || over_file)
		region.host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, file, 0);
	else
		region.host = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(region.host != MAP_FAILED);
	if (!shared && !over_file)
		memset(region.host, 0xaa, SIZE);
	region = (struct guest_region){.size = SIZE, .host = region.host, .fd = shared ? file : -1};
	base.fd = file;
	region.base = over_file ? &base : NULL;
}

static uint8_t at(size_t page)
{
	const uint8_t *bytes = (const uint8_t *)region.host + page * PAGE;

	for (size_t i = 1; i < PAGE; i++)
		CHECK_EQ(bytes[i], bytes[0]);
	return bytes[0];
}

static void give(size_t first, size_t count)
{
	CHECK_EQ(guest_discard(&region, first * PAGE, count * PAGE), 0);
}

/* Mappings of this process that have a part of [from, from + size). */
static unsigned int mappings_in(uintptr_t from, uint64_t size)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	unsigned int count = 0;
	char line[512];

	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &start, &end) == 2)
			count += start < from + size && end > from;
	fclose(maps);
	return count;
}

static unsigned int mappings(void)
{
	return mappings_in((uintptr_t)region.host, SIZE);
}

static void reads_as_zeros_and_leaves_the_rest(void)
{
	for (int kind = 0; kind < 3; kind++) {
		set_up(kind == 1, kind == 2);
		memset((char *)region.host + 5 * PAGE, 0xbb, PAGE); /* written since */
		give(4, 3);
		give(PAGES - 1, 1);
		for (size_t i = 0; i < PAGES; i++)
			CHECK_EQ(at(i), (i >= 4 && i < 7) || i == PAGES - 1 ? 0 : 0xaa);
		memset((char *)region.host + 6 * PAGE, 0xcc, PAGE);
		CHECK_EQ(at(6), 0xcc);
		give(6, 1);
		CHECK_EQ(at(6), 0);
	}
	tear_down();
}

static void the_file_below_keeps_its_bytes_and_the_pages_are_known(void)
{
	char byte;

	set_up(false, true);
	CHECK(!base.gone);
	give(3, 2);
	for (size_t i = 0; i < PAGES; i++)
		CHECK_EQ(bitmap_test(base.gone, i), i == 3 || i == 4);
	CHECK_EQ(pread(file, &byte, 1, 3 * PAGE), 1);
	CHECK_EQ((uint8_t)byte, 0xaa);
	tear_down();
}

static void ranges_that_touch_are_one_mapping(void)
{
	set_up(false, true);
	give(10, 2);
	CHECK_EQ(mappings(), 3);
	give(14, 2);
	CHECK_EQ(mappings(), 5);
	give(12, 2);
	CHECK_EQ(mappings(), 3);
	give(11, 3); /* again: no new mapping */
	CHECK_EQ(mappings(), 3);
	give(0, 10);
	CHECK_EQ(mappings(), 2);
	give(16, PAGES - 16);
	CHECK_EQ(mappings(), 1);
	tear_down();
}

/* Copies are freed all the same, and the file's bytes are the guest's own old ones. */
static void too_many_mappings_cost_the_zeros_and_not_the_memory(void)
{
	set_up(false, true);
	memset((char *)region.host + 5 * PAGE, 0xbb, PAGE);
	give(20, 1);
	base.crowded = true;
	give(5, 1);
	CHECK_EQ(at(5), 0xaa);
	CHECK(!bitmap_test(base.gone, 5));
	CHECK_EQ(mappings(), 3);
	memset((char *)region.host + 20 * PAGE, 0xbb, PAGE);
	give(20, 1);
	CHECK_EQ(at(20), 0);
	tear_down();
}

/* Those whose pages were written to do not become one when what is between them goes, too. */
static void mappings_stay_few_whatever_is_written_in_between(void)
{
	const size_t pages = 4096;
	struct guest_file below = {.fd = memfd_create("memory", MFD_CLOEXEC)};
	struct guest_region large = {.size = pages * PAGE, .fd = -1, .base = &below};
	unsigned int before = mappings_in(0, INT64_MAX);
	char *host;

	CHECK_EQ(ftruncate(below.fd, (off_t)large.size), 0);
	host = large.host = mmap(NULL, large.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, below.fd, 0);
	CHECK(host != MAP_FAILED);
	below.most = before + 200;
	for (size_t page = 0; page < pages; page += 2) {
		CHECK_EQ(guest_discard(&large, page * PAGE, PAGE), 0);
		host[page * PAGE] = 1;
		CHECK_EQ(page ? guest_discard(&large, (page - 1) * PAGE, PAGE) : 0, 0);
	}
	CHECK(below.crowded);
	CHECK(mappings_in(0, INT64_MAX) < before + 500);
	for (size_t page = 0; page < pages; page++)
		CHECK_EQ(host[page * PAGE], page % 2 == 0);
	munmap(host, large.size);
	free(below.gone);
	fd_close(&below.fd);
}

TEST_MAIN(TEST(reads_as_zeros_and_leaves_the_rest), TEST(the_file_below_keeps_its_bytes_and_the_pages_are_known),
	  TEST(ranges_that_touch_are_one_mapping), TEST(too_many_mappings_cost_the_zeros_and_not_the_memory),
	  TEST(mappings_stay_few_whatever_is_written_in_between))
