/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/migration/page_list: which pages are sent again, against a guest that writes and a log that is told apart by ranges. */
#include "vmm/migration/page_list.h"
#include "core/bitmap.h"
#include "tests/unit/test.h"

#include <sys/mman.h>

#define PAGE GUEST_PAGE_SIZE
#define LOW_SIZE MIB(130)
#define HIGH_SIZE (MIB(3) + 5 * PAGE)
#define HIGH GIB(4)

static struct guest_memory *memory;
static struct dirty_set set;
static struct page_list *list;
static void *low, *high;
static bool written[(LOW_SIZE + HIGH_SIZE) / PAGE]; /* the log */
static bool sent[(LOW_SIZE + HIGH_SIZE) / PAGE];
static unsigned int collects;
static uint64_t collected;
static int fail;

static size_t index_of(uint64_t gpa)
{
	return gpa < HIGH ? gpa / PAGE : (gpa - HIGH + LOW_SIZE) / PAGE;
}

static int log_start(struct dirty_source *source, struct err *err)
{
	memset(written, true, sizeof(written)); /* as KVM begins */
	return 0;
}

static void log_stop(struct dirty_source *source)
{
}

static int log_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	size_t first = index_of(gpa);

	if (fail)
		return err_set(err, fail, "lost");
	collects++;
	collected += size;
	for (size_t i = 0; i < size / PAGE; i++) {
		if (written[first + i])
			bitmap_set(bitmap, i);
		written[first + i] = false;
	}
	return 0;
}

static const struct dirty_source_ops log_ops = {log_start, log_stop, log_collect};
static struct dirty_source source = {.name = "log", .ops = &log_ops};

static void begin(void)
{
	fail = 0;
	collects = 0;
	collected = 0;
	memset(sent, 0, sizeof(sent));
	set = (struct dirty_set){0};
	memory = guest_memory_create();
	low = mmap(NULL, LOW_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	high = mmap(NULL, HIGH_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){0, LOW_SIZE, low, -1, 0}, NULL), 0);
	CHECK_EQ(guest_memory_add(memory, &(struct guest_region){HIGH, HIGH_SIZE, high, -1, 0}, NULL), 0);
	CHECK_EQ(dirty_set_add(&set, &source, NULL), 0);
	CHECK_EQ(dirty_set_start(&set, NULL), 0);
	CHECK_EQ(page_list_create(memory, &set, NULL, &list, NULL), 0);
	CHECK_EQ(page_list_left(list), LOW_SIZE + HIGH_SIZE);
}

static void end(void)
{
	page_list_destroy(list);
	dirty_set_stop(&set);
	guest_memory_destroy(memory);
	munmap(low, LOW_SIZE);
	munmap(high, HIGH_SIZE);
}

/* Sends at most so many bytes of what is to be sent next, and checks the marks; its bytes. */
static uint64_t take(uint64_t max)
{
	struct memory_marks marks[PAGE_LIST_MAX_MARKS];
	uint64_t size = 0, before = page_list_left(list);
	size_t count;

	CHECK_EQ(page_list_marks(list, marks, &count, NULL), 0);
	for (size_t i = 0; i < count; i++) {
		CHECK(guest_memory_at(memory, marks[i].gpa, marks[i].size));
		for (uint64_t page = 0; page < marks[i].size / PAGE && size < max; page++) {
			if (!bitmap_test(marks[i].bitmap, page))
				continue;
			marks[i].bitmap[page / BITS_PER_LONG] &= ~(1ul << page % BITS_PER_LONG);
			CHECK(!sent[index_of(marks[i].gpa) + page]);
			sent[index_of(marks[i].gpa) + page] = true;
			size += PAGE;
		}
	}
	CHECK_EQ(before - page_list_left(list), size);
	CHECK(size || !before);
	return size;
}

static void take_all(uint64_t max)
{
	while (take(max))
		;
	CHECK_EQ(page_list_left(list), 0);
}

static size_t count_sent(void)
{
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(sent); i++)
		count += sent[i];
	return count;
}

static void first_pass_sends_everything_once(void)
{
	begin();
	CHECK_EQ(page_list_collect(list, NULL), 0);
	CHECK_EQ(collects, 0);
	CHECK_EQ(page_list_left(list), LOW_SIZE + HIGH_SIZE);
	take_all(KIB(256));
	CHECK_EQ(count_sent(), ARRAY_SIZE(sent));
	CHECK_EQ(collects, 4); /* 64, 64 and 2 MiB, and the high region */
	CHECK_EQ(collected, LOW_SIZE + HIGH_SIZE);
	CHECK_EQ(page_list_collect(list, NULL), 0);
	CHECK_EQ(page_list_left(list), 0); /* not dirty because the log began so */
	end();
}

/* Written before its part was collected: sent once, with the rest. Written later: sent again. */
static void written_pages_are_sent_again(void)
{
	static const uint64_t places[] = {0, 7 * PAGE, 63 * PAGE, 64 * PAGE, 65 * PAGE, MIB(64) - PAGE, MIB(64), LOW_SIZE - PAGE,
					  HIGH, HIGH + HIGH_SIZE - PAGE};

	begin();
	take_all(MIB(2));
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		written[index_of(places[i])] = true;
	memset(sent, 0, sizeof(sent));
	CHECK_EQ(page_list_left(list), 0);
	CHECK_EQ(page_list_collect(list, NULL), 0);
	CHECK_EQ(page_list_left(list), ARRAY_SIZE(places) * PAGE);
	take_all(MIB(2));
	CHECK_EQ(count_sent(), ARRAY_SIZE(places));
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		CHECK(sent[index_of(places[i])]);
	end();
}

static void written_while_the_first_pass_runs(void)
{
	begin();
	CHECK_EQ(take(PAGE), PAGE);
	written[0] = true;                 /* sent already */
	written[index_of(HIGH)] = true;    /* not come to yet */
	written[index_of(MIB(1))] = true;  /* of the part that was collected, not sent yet */
	take_all(MIB(2));
	memset(sent, 0, sizeof(sent));
	CHECK_EQ(page_list_collect(list, NULL), 0);
	take_all(MIB(2));
	CHECK(sent[0]);
	CHECK(!sent[index_of(HIGH)]);
	CHECK_EQ(count_sent(), 2);
	end();
}

/* A time-out in the first pass: what was not sent stays on the list, and nothing is collected twice. */
static void collect_in_the_first_pass(void)
{
	begin();
	for (int i = 0; i < 5; i++)
		CHECK_EQ(take(MIB(2)), MIB(2));
	CHECK_EQ(page_list_collect(list, NULL), 0);
	CHECK_EQ(page_list_left(list), LOW_SIZE + HIGH_SIZE - MIB(10));
	collects = 0;
	take_all(MIB(2));
	CHECK_EQ(collects, 0);
	CHECK_EQ(count_sent(), ARRAY_SIZE(sent));
	end();
}

static void failure_loses_no_page(void)
{
	struct memory_marks marks[PAGE_LIST_MAX_MARKS];
	size_t count;
	struct err err;

	begin();
	fail = -EIO;
	CHECK_EQ(page_list_marks(list, marks, &count, &err), -EIO);
	CHECK_STR(err.text, "log: lost");
	CHECK_EQ(page_list_left(list), LOW_SIZE + HIGH_SIZE);
	fail = 0;
	take_all(MIB(2));
	fail = -EIO;
	CHECK_EQ(page_list_collect(list, &err), -EIO);
	CHECK(page_list_left(list) >= LOW_SIZE);
	end();
}

TEST_MAIN(TEST(first_pass_sends_everything_once), TEST(written_pages_are_sent_again), TEST(written_while_the_first_pass_runs),
	  TEST(collect_in_the_first_pass), TEST(failure_loses_no_page))
