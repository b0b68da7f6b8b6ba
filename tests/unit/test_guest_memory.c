/* SPDX-License-Identifier: Apache-2.0 */
/* core/guest_memory, core/dirty and core/prefault: regions, listeners that refuse, the accessor's edges, own writes. */
#include "core/bitmap.h"
#include "core/guest_memory.h"
#include "core/prefault.h"
#include "tests/unit/test.h"

#include <sys/mman.h>
#include <sys/resource.h>

static char low[0x4000] __attribute__((aligned(4096)));
static char high[0x2000] __attribute__((aligned(4096)));

static struct guest_memory *two_regions(void)
{
	struct guest_memory *memory = guest_memory_create();
	struct guest_region r = {.gpa = GIB(4), .size = sizeof(high), .host = high, .fd = -1};

	CHECK_EQ(guest_memory_add(memory, &r, NULL), 0);
	r = (struct guest_region){.gpa = 0, .size = sizeof(low), .host = low, .fd = -1};
	CHECK_EQ(guest_memory_add(memory, &r, NULL), 0);
	return memory;
}

static void translates_whole_ranges_only(void)
{
	struct guest_memory *memory = two_regions();

	CHECK(guest_memory_at(memory, 0, 1) == low);
	CHECK(guest_memory_at(memory, 0, 0x4000) == low);
	CHECK(guest_memory_at(memory, 0x3fff, 1) == low + 0x3fff);
	CHECK(!guest_memory_at(memory, 0x3fff, 2));
	CHECK(!guest_memory_at(memory, 0x4000, 1));
	CHECK(!guest_memory_at(memory, 0, 0));
	CHECK(!guest_memory_at(memory, 0, UINT64_MAX));
	CHECK(!guest_memory_at(memory, UINT64_MAX, 2));
	CHECK(!guest_memory_at(memory, 1, UINT64_MAX));
	CHECK(guest_memory_at(memory, GIB(4) + 0x1000, 0x1000) == high + 0x1000);
	CHECK_EQ(guest_memory_size(memory), 0x6000);
	guest_memory_destroy(memory);
}

static void keeps_regions_in_order(void)
{
	struct guest_memory *memory = two_regions();
	const struct guest_region *regions;
	size_t count;

	regions = guest_memory_regions(memory, &count);
	CHECK_EQ(count, 2);
	CHECK_EQ(regions[0].gpa, 0);
	CHECK_EQ(regions[1].gpa, GIB(4));
	CHECK_EQ(guest_memory_remove(memory, 0, NULL), 0);
	regions = guest_memory_regions(memory, &count);
	CHECK_EQ(count, 1);
	CHECK_EQ(regions[0].gpa, GIB(4));
	CHECK_EQ(guest_memory_remove(memory, 0, NULL), -ENOENT);
	guest_memory_destroy(memory);
}

static void refuses_bad_regions(void)
{
	struct guest_memory *memory = two_regions();
	struct guest_region r = {.gpa = 0x3000, .size = 0x2000, .host = high, .fd = -1};

	CHECK_EQ(guest_memory_add(memory, &r, NULL), -EINVAL);
	r.gpa = 0x5001;
	CHECK_EQ(guest_memory_add(memory, &r, NULL), -EINVAL);
	r.gpa = 0x5000;
	r.size = 0;
	CHECK_EQ(guest_memory_add(memory, &r, NULL), -EINVAL);
	r.size = 0x1234;
	CHECK_EQ(guest_memory_add(memory, &r, NULL), -EINVAL);
	r.gpa = UINT64_MAX - 0xfff;
	r.size = 0x2000;
	CHECK_EQ(guest_memory_add(memory, &r, NULL), -EINVAL);
	for (uint64_t i = 0; i < 62; i++) {
		r = (struct guest_region){.gpa = 0x100000 + i * 0x1000, .size = 0x1000, .host = high, .fd = -1};
		CHECK_EQ(guest_memory_add(memory, &r, NULL), 0);
	}
	r.gpa = 0x900000;
	CHECK_EQ(guest_memory_add(memory, &r, NULL), -ENOSPC);
	guest_memory_destroy(memory);
}

struct counter {
	struct guest_memory_listener listener;
	int regions;
	uint64_t refuses; /* the region at this address */
};

static int count_add(struct guest_memory_listener *listener, const struct guest_region *region, struct err *err)
{
	struct counter *c = container_of(listener, struct counter, listener);

	if (region->gpa == c->refuses)
		return err_set(err, -EPERM, "not this one");
	c->regions++;
	return 0;
}

static void count_remove(struct guest_memory_listener *listener, const struct guest_region *region)
{
	container_of(listener, struct counter, listener)->regions--;
}

static const struct guest_memory_listener_ops count_ops = {.add = count_add, .remove = count_remove};

static void a_listener_that_refuses_changes_nothing(void)
{
	struct guest_memory *memory = two_regions();
	struct counter first = {.listener.ops = &count_ops, .refuses = 1};
	struct counter second = {.listener.ops = &count_ops, .refuses = GIB(4)};
	struct guest_region r = {.gpa = MIB(1), .size = 0x1000, .host = high, .fd = -1};
	struct err err;

	CHECK_EQ(guest_memory_listen(memory, &first.listener, &err), 0);
	CHECK_EQ(first.regions, 2);
	CHECK_EQ(guest_memory_listen(memory, &second.listener, &err), -EPERM);
	CHECK_EQ(second.regions, 0);
	second.refuses = MIB(1);
	CHECK_EQ(guest_memory_listen(memory, &second.listener, &err), 0);
	CHECK_EQ(guest_memory_add(memory, &r, &err), -EPERM);
	CHECK_STR(err.text, "not this one");
	CHECK_EQ(first.regions, 2);
	CHECK_EQ(second.regions, 2);
	CHECK(!guest_memory_at(memory, MIB(1), 1));
	guest_memory_unlisten(memory, &first.listener);
	CHECK_EQ(first.regions, 0);
	CHECK_EQ(guest_memory_remove(memory, 0, &err), 0);
	CHECK_EQ(second.regions, 1);
	guest_memory_unlisten(memory, &second.listener);
	CHECK_EQ(second.regions, 0);
	guest_memory_destroy(memory);
}

static void reports_own_writes_once(void)
{
	struct guest_memory *memory = two_regions();
	struct dirty_source *source = guest_memory_dirty_source(memory);
	unsigned long bits = 0;

	CHECK_EQ(guest_memory_write(memory, 0x1000, "x", 1), 0);
	CHECK_EQ(source->ops->collect(source, 0, 0x4000, &bits, NULL), -EINVAL);
	CHECK_EQ(source->ops->start(source, NULL), 0);
	CHECK_EQ(source->ops->collect(source, 0, 0x4000, &bits, NULL), 0);
	CHECK_EQ(bits, 0);
	CHECK_EQ(guest_memory_write(memory, 0x1fff, "xy", 2), 0);
	guest_memory_dirty(memory, GIB(4), 1);
	guest_memory_dirty(memory, 0x9000, 1);
	CHECK_EQ(source->ops->collect(source, 0x2000, 0x2000, &bits, NULL), 0);
	CHECK_EQ(bits, 1);
	CHECK_EQ(source->ops->collect(source, 0, 0x4000, &bits, NULL), 0);
	CHECK_EQ(bits, 3);
	bits = 0;
	CHECK_EQ(source->ops->collect(source, 0, 0x4000, &bits, NULL), 0);
	CHECK_EQ(bits, 0);
	CHECK_EQ(source->ops->collect(source, GIB(4), 0x2000, &bits, NULL), 0);
	CHECK_EQ(bits, 1);
	CHECK_EQ(source->ops->collect(source, 0x3000, 0x2000, &bits, NULL), -EINVAL);
	source->ops->stop(source);
	guest_memory_destroy(memory);
}

static void tracks_memory_added_meanwhile(void)
{
	struct guest_memory *memory = two_regions();
	struct dirty_source *source = guest_memory_dirty_source(memory);
	static char more[65 * 4096] __attribute__((aligned(4096)));
	struct guest_region r = {.gpa = MIB(1), .size = sizeof(more), .host = more, .fd = -1};
	unsigned long bits[2] = {0};

	CHECK_EQ(source->ops->start(source, NULL), 0);
	CHECK_EQ(guest_memory_add(memory, &r, NULL), 0);
	guest_memory_dirty(memory, MIB(1) + 63 * 4096, 8192);
	CHECK_EQ(source->ops->collect(source, MIB(1) + 4096, 64 * 4096, bits, NULL), 0);
	CHECK_EQ(bits[0], 3ul << 62);
	CHECK_EQ(bits[1], 0);
	guest_memory_destroy(memory);
}

struct fake_source {
	struct dirty_source source;
	bool on;
	int refuses;
};

static int fake_start(struct dirty_source *source, struct err *err)
{
	struct fake_source *f = container_of(source, struct fake_source, source);

	if (f->refuses)
		return err_set(err, f->refuses, "will not");
	f->on = true;
	return 0;
}

static void fake_stop(struct dirty_source *source)
{
	container_of(source, struct fake_source, source)->on = false;
}

static int fake_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *err)
{
	bitmap_set(bitmap, source->name[0] - 'a');
	return 0;
}

static void a_set_starts_all_sources_or_none(void)
{
	static const struct dirty_source_ops ops = {.start = fake_start, .stop = fake_stop, .collect = fake_collect};
	struct fake_source a = {.source = {.name = "a", .ops = &ops}}, b = {.source = {.name = "b", .ops = &ops}};
	struct fake_source c = {.source = {.name = "c", .ops = &ops}, .refuses = -EIO};
	struct dirty_set set = {0};
	unsigned long bits = 0;
	struct err err;

	CHECK_EQ(dirty_set_add(&set, &a.source, &err), 0);
	CHECK_EQ(dirty_set_add(&set, &c.source, &err), 0);
	CHECK_EQ(dirty_set_start(&set, &err), -EIO);
	CHECK_STR(err.text, "c: will not");
	CHECK(!a.on);
	c.refuses = 0;
	CHECK_EQ(dirty_set_start(&set, &err), 0);
	CHECK(a.on && c.on);
	CHECK_EQ(dirty_set_add(&set, &b.source, &err), 0);
	CHECK(b.on);
	CHECK_EQ(dirty_set_collect(&set, 0, 0x3000, &bits, &err), 0);
	CHECK_EQ(bits, 7);
	dirty_set_remove(&set, &b.source);
	CHECK(!b.on);
	dirty_set_stop(&set);
	CHECK(!a.on && !c.on);
}

/* Page faults that it takes to write to every page, those of a sanitizer's shadow left out. */
__attribute__((no_sanitize("address", "undefined"))) static long faults_of_writing(char *host, size_t size)
{
	struct rusage before, after;

	getrusage(RUSAGE_THREAD, &before);
	for (size_t at = 0; at < size; at += 4096)
		*(volatile char *)(host + at + 1) = 1;
	getrusage(RUSAGE_THREAD, &after);
	return after.ru_minflt - before.ru_minflt;
}

static void prefault_populates_and_keeps(void)
{
	const size_t size = MIB(8);
	char *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(host != MAP_FAILED);
	strcpy(host + 4096, "stays");
	CHECK_EQ(prefault(host, size, "memory", NULL, NULL), 0);
	CHECK_STR(host + 4096, "stays");
	CHECK(faults_of_writing(host, size) < 8);
	munmap(host, size);
}

/* Some of it written, some only read, which puts the page of zeroes there, some not touched. */
static void prefault_is_not_deceived(void)
{
	const size_t size = MIB(8);
	char *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int sum = 0;

	CHECK(host != MAP_FAILED);
	madvise(host, size, MADV_NOHUGEPAGE);
	memset(host, 'a', MIB(2));
	for (size_t at = MIB(2); at < MIB(4); at += 4096)
		sum += *(volatile unsigned char *)(host + at);
	CHECK_EQ(sum, 0);
	CHECK_EQ(prefault(host, size, "memory", NULL, NULL), 0);
	CHECK_EQ(host[MIB(2) - 1], 'a');
	CHECK(faults_of_writing(host, size) < 8);
	madvise(host, size, MADV_DONTNEED);
	munmap(host + size / 2, size / 2);
	CHECK_EQ(prefault(host, size, "memory", NULL, NULL), -ENOMEM);
	munmap(host, size / 2);
}

static void samples_see_what_is_missing(void)
{
	const size_t size = MIB(8) + 4096, holes[] = {0, MIB(1), MIB(4), MIB(7)}, hole = MIB(5) / 4;
	char *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(host != MAP_FAILED);
	madvise(host, size, MADV_NOHUGEPAGE);
	CHECK(!prefault_seems_done(host, size));
	memset(host, 1, size);
	CHECK(prefault_seems_done(host, size));
	CHECK(prefault_seems_done(host, 4096));
	for (size_t i = 0; i < ARRAY_SIZE(holes); i++) {
		madvise(host + holes[i], MIN(hole, size - holes[i]), MADV_DONTNEED);
		CHECK(!prefault_seems_done(host, size));
		memset(host, 1, size);
	}
	munmap(host + MIB(4), MIB(1));
	CHECK(!prefault_seems_done(host, size));
	munmap(host, size);
}

TEST_MAIN(TEST(translates_whole_ranges_only), TEST(keeps_regions_in_order), TEST(refuses_bad_regions),
	  TEST(a_listener_that_refuses_changes_nothing), TEST(reports_own_writes_once),
	  TEST(tracks_memory_added_meanwhile), TEST(a_set_starts_all_sources_or_none), TEST(prefault_populates_and_keeps),
	  TEST(prefault_is_not_deceived), TEST(samples_see_what_is_missing))
