/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/page_set, and core/dirty's observer: sets of pages in regions whose bitmaps do not fit words. */
#include "vmm/migration/page_set.h"
#include "tests/unit/test.h"

#include "core/bitmap.h"

#define PAGE GUEST_PAGE_SIZE
#define LOW_PAGES 70u
#define HIGH_PAGES 131u
#define HIGH GIB(4)

static struct guest_memory *memory;
static struct page_set *set;
static char ram[(LOW_PAGES + HIGH_PAGES) * PAGE] __attribute__((aligned(4096)));

static void begin(bool full)
{
	memory = guest_memory_create();
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){0, LOW_PAGES * PAGE, ram, -1, 0}, NULL), 0);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){HIGH, HIGH_PAGES * PAGE, ram + LOW_PAGES * PAGE, -1, 0}, NULL), 0);
	CHECK_EQ(page_set_create(memory, full, &set, NULL), 0);
}

static void end(void)
{
	page_set_destroy(set);
	guest_memory_destroy(memory);
}

static bool has(const struct page_set *of, uint64_t gpa)
{
	size_t count;
	const struct memory_marks *regions = page_set_regions(of, &count);

	CHECK_EQ(count, 2);
	return gpa < HIGH ? bitmap_test(regions[0].bitmap, gpa / PAGE) : bitmap_test(regions[1].bitmap, (gpa - HIGH) / PAGE);
}

static void pages_are_added_where_they_belong(void)
{
	static const unsigned long bits[] = {1ul << 63 | 5, 1};

	begin(false);
	CHECK_EQ(page_set_count(set), 0);
	page_set_add(set, 3 * PAGE, 65 * PAGE, bits);
	CHECK(has(set, 3 * PAGE) && has(set, 5 * PAGE) && has(set, 66 * PAGE) && has(set, 67 * PAGE));
	CHECK_EQ(page_set_count(set), 4);
	page_set_add(set, 3 * PAGE, 64 * PAGE, bits); /* the second word is not looked at */
	CHECK_EQ(page_set_count(set), 4);
	page_set_add(set, HIGH + 130 * PAGE, PAGE, NULL);
	CHECK(has(set, HIGH + 130 * PAGE));
	CHECK_EQ(page_set_count(set), 5);
	page_set_clear(set);
	CHECK_EQ(page_set_count(set), 0);
	end();
}

static void what_is_not_in_one_region_is_left_out(void)
{
	begin(false);
	page_set_add(set, 69 * PAGE, 2 * PAGE, NULL);
	page_set_add(set, GIB(1), PAGE, NULL);
	page_set_add(set, HIGH - PAGE, 2 * PAGE, NULL);
	page_set_add(set, HIGH + 1 * PAGE, HIGH_PAGES * PAGE, NULL);
	CHECK_EQ(page_set_count(set), 0);
	end();
}

static void a_full_one_has_all_pages(void)
{
	size_t len;
	uint8_t *flat;

	begin(true);
	CHECK_EQ(page_set_count(set), LOW_PAGES + HIGH_PAGES);
	flat = page_set_flatten(set, &len);
	CHECK_EQ(len, 26);
	for (size_t i = 0; i < 25; i++)
		CHECK_EQ(flat[i], 0xff);
	CHECK_EQ(flat[25], 1);
	free(flat);
	end();
}

static void regions_follow_each_other_in_the_flat_one(void)
{
	struct page_set *more;
	size_t len;
	uint8_t *flat;

	begin(false);
	CHECK_EQ(page_set_create(memory, false, &more, NULL), 0);
	page_set_add(set, 69 * PAGE, PAGE, NULL);
	page_set_add(more, HIGH, PAGE, NULL);
	page_set_add(more, HIGH + 58 * PAGE, PAGE, NULL);
	page_set_join(set, more);
	CHECK_EQ(page_set_count(set), 3);
	flat = page_set_flatten(set, &len);
	for (size_t bit = 0; bit < len * 8; bit++)
		CHECK_EQ(flat[bit / 8] >> bit % 8 & 1, bit == 69 || bit == 70 || bit == 128);
	free(flat);
	page_set_destroy(more);
	end();
}

/* ---- the observer of a dirty set ---- */

static uint64_t seen_gpa;
static unsigned long seen;
static unsigned int times, starts, stops;
static bool seen_all;
static int refuse;

static void saw(struct dirty_observer *observer, uint64_t gpa, uint64_t size, const unsigned long *bitmap)
{
	times++;
	seen_gpa = gpa;
	seen_all = !bitmap;
	seen = bitmap ? bitmap[0] : 0;
}

static int source_start(struct dirty_source *source, struct err *err)
{
	starts++;
	return 0;
}

static void source_stop(struct dirty_source *source)
{
	stops++;
}

static int source_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	bitmap_set(bitmap, 3);
	return refuse;
}

static void an_observer_sees_what_was_reported_alone(void)
{
	static const struct dirty_source_ops ops = {source_start, source_stop, source_collect};
	struct dirty_source source = {.name = "source", .ops = &ops};
	struct dirty_observer observer = {saw};
	struct dirty_set dirty = {.observer = &observer};
	unsigned long bitmap = 1;

	CHECK_EQ(dirty_set_add(&dirty, &source, NULL), 0);
	CHECK_EQ(dirty_set_start(&dirty, NULL), 0);
	CHECK_EQ(dirty_set_collect(&dirty, 5 * PAGE, 8 * PAGE, &bitmap, NULL), 0);
	CHECK_EQ(bitmap, 9);
	CHECK_EQ(seen, 8);
	CHECK_EQ(seen_gpa, 5 * PAGE);
	CHECK(!seen_all);
	refuse = -EIO;
	CHECK_EQ(dirty_set_collect(&dirty, 0, 8 * PAGE, &bitmap, NULL), -EIO);
	CHECK(seen_all); /* bits may be lost */
	CHECK_EQ(times, 2);
	dirty_set_stop(&dirty);
}

static void sources_run_until_the_last_user_stops_them(void)
{
	static const struct dirty_source_ops ops = {source_start, source_stop, source_collect};
	struct dirty_source source = {.name = "source", .ops = &ops};
	struct dirty_set dirty = {0};

	starts = stops = 0;
	CHECK_EQ(dirty_set_add(&dirty, &source, NULL), 0);
	dirty_set_stop(&dirty);
	CHECK_EQ(dirty_set_start(&dirty, NULL), 0);
	CHECK_EQ(dirty_set_start(&dirty, NULL), 0);
	dirty_set_stop(&dirty);
	CHECK(starts == 1 && stops == 0);
	dirty_set_stop(&dirty);
	CHECK(starts == 1 && stops == 1);
	dirty_set_stop(&dirty);
	CHECK_EQ(stops, 1);
}

TEST_MAIN(TEST(pages_are_added_where_they_belong), TEST(what_is_not_in_one_region_is_left_out), TEST(a_full_one_has_all_pages),
	  TEST(regions_follow_each_other_in_the_flat_one), TEST(an_observer_sees_what_was_reported_alone),
	  TEST(sources_run_until_the_last_user_stops_them))
