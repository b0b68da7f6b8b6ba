/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/kvm/kvm_dirty: KVM's log of written pages as a dirty source, against a KVM of the test's own: the ioctl() below keeps a
 * log for each slot, and checks what the kernel checks. Each case runs with the log that reading clears and with the one that
 * is cleared by us.
 */
#include "tests/unit/test.h"
#include "core/bitmap.h"
#include "vmm/kvm/kvm.h"

#include <stdarg.h>
#include <sys/ioctl.h>

#define PAGES 1000 /* of the first slot: not whole words */
#define BASE 0x100000ull
#define SECOND_BASE 0x40000000ull
#define SECOND_PAGES 64
#define LONGS 16
#define LOG_LONGS (KVM_SLOT_BYTES / GUEST_PAGE_SIZE / BITS_PER_LONG)

static struct {
	int manual; /* what KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 says */
	bool manual_on, fail_get, fail_clear;
	int fail_add; /* the so-manieth slot cannot be added */
	int fail_flags; /* the so-manieth slot cannot be logged */
	struct {
		uint64_t pages;
		bool logged;
		unsigned long log[LOG_LONGS];
	} slots[8];
	uint64_t read; /* bytes of logs */
	unsigned int gets, clears;
} kernel;

static struct kvm kvm;
static struct dirty_source *source;
static unsigned long bitmap[LONGS];
static struct err err;

static int set_region(const struct kvm_userspace_memory_region *region)
{
	bool log = region->flags & KVM_MEM_LOG_DIRTY_PAGES;

	if (region->memory_size && kernel.fail_add && --kernel.fail_add == 0) {
		errno = EEXIST;
		return -1;
	}

	if (region->slot >= ARRAY_SIZE(kernel.slots))
		return 0; /* not remembered */
	if (log && !kernel.slots[region->slot].logged) {
		if (kernel.fail_flags && --kernel.fail_flags == 0) {
			errno = ENOMEM;
			return -1;
		}
		memset(kernel.slots[region->slot].log,
		       kernel.manual_on && kernel.manual & KVM_DIRTY_LOG_INITIALLY_SET ? 0xff : 0, sizeof(kernel.slots[0].log));
	}
	kernel.slots[region->slot].pages = region->memory_size / GUEST_PAGE_SIZE;
	kernel.slots[region->slot].logged = log;
	return 0;
}

static int get_log(const struct kvm_dirty_log *arg)
{
	size_t bytes = bitmap_longs(kernel.slots[arg->slot].pages) * sizeof(long);

	kernel.gets++;
	if (kernel.fail_get || !kernel.slots[arg->slot].logged) {
		errno = kernel.fail_get ? ENOMEM : ENOENT;
		return -1;
	}
	memcpy(arg->dirty_bitmap, kernel.slots[arg->slot].log, bytes);
	kernel.read += bytes;
	if (!kernel.manual_on)
		memset(kernel.slots[arg->slot].log, 0, bytes);
	return 0;
}

static int clear_log(const struct kvm_clear_dirty_log *arg)
{
	uint64_t pages = kernel.slots[arg->slot].pages;

	kernel.clears++;
	if (kernel.fail_clear || !kernel.manual_on || arg->first_page % 64 || arg->first_page > pages ||
	    arg->num_pages > pages - arg->first_page ||
	    (arg->num_pages % 64 && arg->num_pages < pages - arg->first_page)) {
		errno = EINVAL;
		return -1;
	}
	for (size_t i = 0; i < bitmap_longs(arg->num_pages); i++)
		kernel.slots[arg->slot].log[arg->first_page / 64 + i] &= ~((unsigned long *)arg->dirty_bitmap)[i];
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	switch (request) {
	case KVM_SET_USER_MEMORY_REGION:
		return set_region(arg);
	case KVM_GET_DIRTY_LOG:
		return get_log(arg);
	case KVM_CLEAR_DIRTY_LOG:
		return clear_log(arg);
	case KVM_CHECK_EXTENSION:
		return kernel.manual;
	case KVM_ENABLE_CAP:
		kernel.manual_on = true;
		return 0;
	default:
		errno = ENOTTY;
		return -1;
	}
}

static struct guest_memory *memory;

static void add_memory(uint64_t gpa, uint64_t pages)
{
	const struct guest_region region = {
		.gpa = gpa, .size = pages * GUEST_PAGE_SIZE, .host = (void *)(uintptr_t)(0x10000000 + gpa), .fd = -1,
	};

	CHECK_EQ(guest_memory_add(memory, &region, &err), 0);
}

static void end(void)
{
	if (source)
		source->ops->stop(source);
	guest_memory_destroy(take_ptr(memory));
	source = NULL;
	memset(&kernel, 0, sizeof(kernel));
}

/* A VM with one slot of guest memory and one mapping that is none. */
static void begin(int manual)
{
	end();
	memset(bitmap, 0, sizeof(bitmap));
	kernel.manual = manual;
	memory = guest_memory_create();
	kvm = (struct kvm){.fd = -1, .vm_fd = -1};
	pthread_mutex_init(&kvm.lock, NULL);
	source = kvm_dirty_source(&kvm);
	CHECK_EQ(kvm_add_memory(&kvm, memory, &err), 0);
	add_memory(BASE, PAGES);
	CHECK_EQ(kvm_map(&kvm, 0xc0000000, 0x10000, (void *)0x7000000, &err), 0);
}

static void guest_writes(unsigned int slot, size_t page)
{
	if (kernel.slots[slot].logged)
		bitmap_set(kernel.slots[slot].log, page);
}

static int collect(size_t first, size_t count)
{
	memset(bitmap, 0, sizeof(bitmap));
	return source->ops->collect(source, BASE + first * GUEST_PAGE_SIZE, count * GUEST_PAGE_SIZE, bitmap, &err);
}

/* How many pages the last collect reported. */
static unsigned int reported(void)
{
	unsigned int count = 0;

	for (size_t i = 0; i < LONGS; i++)
		count += (unsigned int)__builtin_popcountl(bitmap[i]);
	return count;
}

static const int kinds[] = {
	0, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
};

/* Starts, with nothing dirty. */
static void begin_clean(int manual)
{
	begin(manual);
	CHECK_EQ(source->ops->start(source, &err), 0);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(reported(), 0);
}

static void logs_guest_memory_alone(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin(kinds[kind]);
		CHECK(!kernel.slots[0].logged);
		CHECK_EQ(source->ops->start(source, &err), 0);
		CHECK_EQ(kernel.manual_on, kinds[kind] > 0);
		CHECK(kernel.slots[0].logged && !kernel.slots[1].logged);
		source->ops->stop(source);
		CHECK(!kernel.slots[0].logged);
	}
}

static void begins_with_all_pages_where_that_is_cheap(void)
{
	begin(kinds[2]);
	CHECK_EQ(source->ops->start(source, &err), 0);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(reported(), PAGES);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(reported(), 0);
}

static void reports_a_page_once(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin_clean(kinds[kind]);
		guest_writes(0, 0);
		guest_writes(0, 63);
		guest_writes(0, 64);
		guest_writes(0, PAGES - 1);
		CHECK_EQ(collect(0, PAGES), 0);
		CHECK_EQ(reported(), 4);
		CHECK(bitmap_test(bitmap, 0) && bitmap_test(bitmap, 63) && bitmap_test(bitmap, 64));
		CHECK(bitmap_test(bitmap, PAGES - 1));
		CHECK_EQ(collect(0, PAGES), 0);
		CHECK_EQ(reported(), 0);
	}
}

/* Every page is dirty; ranges of all lengths and starts take exactly theirs, and what they leave is there afterwards. */
static void loses_no_neighbours(void)
{
	static const size_t ranges[][2] = {
		{0, 1}, {63, 1}, {63, 2}, {64, 64}, {1, 63}, {7, 250}, {130, 62}, {128, 64}, {PAGES - 1, 1}, {900, 100},
		{0, PAGES}, {1, PAGES - 1}, {0, PAGES - 1}, {3, 640}, {960, 40},
	};

	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
			size_t first = ranges[i][0], count = ranges[i][1];

			begin_clean(kinds[kind]);
			for (size_t page = 0; page < PAGES; page++)
				guest_writes(0, page);
			CHECK_EQ(collect(first, count), 0);
			CHECK_EQ(reported(), count);
			CHECK(bitmap_test(bitmap, 0) && bitmap_test(bitmap, count - 1));
			CHECK_EQ(collect(first, count), 0);
			CHECK_EQ(reported(), 0);
			CHECK_EQ(collect(0, PAGES), 0);
			CHECK_EQ(reported(), PAGES - count);
			for (size_t page = 0; page < PAGES; page++)
				CHECK(bitmap_test(bitmap, page) == (page < first || page - first >= count));
		}
	}
}

/* Single pages, asked for in ranges that begin anywhere, come out at their place. */
static void places_bits(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin_clean(kinds[kind]);
		for (size_t page = 0; page < PAGES; page += 13) {
			size_t first = page > 70 ? page - 70 : 0;

			guest_writes(0, page);
			CHECK_EQ(collect(first, MIN(100u, PAGES - first)), 0);
			CHECK_EQ(reported(), 1);
			CHECK(bitmap_test(bitmap, page - first));
		}
	}
}

static void adds_to_what_others_report(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin_clean(kinds[kind]);
		guest_writes(0, 5);
		memset(bitmap, 0, sizeof(bitmap));
		bitmap_set(bitmap, 6);
		CHECK_EQ(source->ops->collect(source, BASE, PAGES * GUEST_PAGE_SIZE, bitmap, &err), 0);
		CHECK_EQ(bitmap[0], 3 << 5);
	}
}

static void writes_after_the_log_was_read_stay(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin_clean(kinds[kind]);
		guest_writes(0, 10);
		CHECK_EQ(collect(0, 64), 0);
		guest_writes(0, 10);
		guest_writes(0, 11);
		CHECK_EQ(collect(0, 64), 0);
		CHECK_EQ(bitmap[0], 3 << 10);
	}
}

static void follows_memory_that_appears(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin_clean(kinds[kind]);
		add_memory(SECOND_BASE, SECOND_PAGES);
		CHECK(kernel.slots[2].logged);
		guest_writes(2, 3);
		memset(bitmap, 0, sizeof(bitmap));
		CHECK_EQ(source->ops->collect(source, SECOND_BASE, SECOND_PAGES * GUEST_PAGE_SIZE, bitmap, &err), 0);
		CHECK(bitmap_test(bitmap, 3));
		CHECK_EQ(guest_memory_remove(memory, SECOND_BASE, &err), 0);
		CHECK_EQ(source->ops->collect(source, SECOND_BASE, SECOND_PAGES * GUEST_PAGE_SIZE, bitmap, &err), -EINVAL);
	}
}

static void clears_nothing_where_nothing_was_written(void)
{
	unsigned int before;

	begin_clean(kinds[2]);
	before = kernel.clears;
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(kernel.clears, before);
}

static void a_failure_is_told(void)
{
	begin_clean(kinds[1]);
	guest_writes(0, 1);
	kernel.fail_get = true;
	CHECK_EQ(collect(0, PAGES), -ENOMEM);
	CHECK(strstr(err.text, "0x100000"));
	kernel.fail_get = false;
	kernel.fail_clear = true;
	CHECK_EQ(collect(0, PAGES), -EINVAL);
	kernel.fail_clear = false;
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK(bitmap_test(bitmap, 1));
}

static void a_start_that_fails_leaves_nothing_logged(void)
{
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		begin(kinds[kind]);
		add_memory(SECOND_BASE, SECOND_PAGES);
		kernel.fail_flags = 2;
		CHECK_EQ(source->ops->start(source, &err), -ENOMEM);
		CHECK(!kernel.slots[0].logged && !kernel.slots[2].logged);
		CHECK_EQ(collect(0, PAGES), -EINVAL);
		CHECK_EQ(source->ops->start(source, &err), 0);
		CHECK(kernel.slots[0].logged && kernel.slots[2].logged);
	}
}

/* From 4 GiB on, to beyond 16 GiB: slots end at multiples of 8 GiB. */
#define LARGE_BASE GIB(4)
#define LARGE_PAGES ((GIB(12) + MIB(1)) / GUEST_PAGE_SIZE)

static void large_memory_is_divided(void)
{
	uint64_t border = GIB(8) - 5 * GUEST_PAGE_SIZE;

	for (size_t kind = 0; kind < 2; kind++) {
		begin(kinds[kind]);
		add_memory(LARGE_BASE, LARGE_PAGES);
		CHECK(kernel.slots[2].pages == GIB(4) / GUEST_PAGE_SIZE && kernel.slots[3].pages == GIB(8) / GUEST_PAGE_SIZE);
		CHECK_EQ(kernel.slots[4].pages, 256);
		CHECK_EQ(source->ops->start(source, &err), 0);
		CHECK(kernel.slots[2].logged && kernel.slots[4].logged);
		guest_writes(2, GIB(4) / GUEST_PAGE_SIZE - 1);
		guest_writes(3, 0);
		guest_writes(3, 3);
		guest_writes(3, 7);
		guest_writes(4, 100);
		/* over the border, where the bitmap's words do not begin with the slot's */
		memset(bitmap, 0, sizeof(bitmap));
		CHECK_EQ(source->ops->collect(source, border, 12 * GUEST_PAGE_SIZE, bitmap, &err), 0);
		CHECK(reported() == 3 && bitmap_test(bitmap, 4) && bitmap_test(bitmap, 5) && bitmap_test(bitmap, 8));
		/* what is beyond stays, and a part costs its own slot's log */
		kernel.read = 0;
		memset(bitmap, 0, sizeof(bitmap));
		CHECK_EQ(source->ops->collect(source, GIB(16), MIB(1), bitmap, &err), 0);
		CHECK(reported() == 1 && bitmap_test(bitmap, 100));
		CHECK_EQ(kernel.read, 32);
		memset(bitmap, 0, sizeof(bitmap));
		CHECK_EQ(source->ops->collect(source, border, 13 * GUEST_PAGE_SIZE, bitmap, &err), 0);
		CHECK(reported() == 1 && bitmap_test(bitmap, 12));
		CHECK(source->ops->collect(source, GIB(16), MIB(2), bitmap, &err) < 0);
	}
}

/* Whatever its size, and wherever it begins: there is room for two such regions, and for BARs. */
static void the_largest_memory_has_few_slots(void)
{
	unsigned int used;

	for (uint64_t gib = 500; gib <= 12000; gib += 37) {
		begin(0);
		add_memory(LARGE_BASE, GIB(gib) / GUEST_PAGE_SIZE);
		used = 0;
		for (size_t i = 0; i < KVM_SLOTS; i++)
			used += !!kvm.slots[i].size;
		CHECK(used <= 2 + KVM_REGION_SLOTS + 1);
	}
}

static void a_part_that_is_refused_takes_all_away(void)
{
	const struct guest_region region = {
		.gpa = LARGE_BASE, .size = LARGE_PAGES * GUEST_PAGE_SIZE, .host = (void *)0x10000000, .fd = -1,
	};

	begin(0);
	kernel.fail_add = 3;
	CHECK_EQ(guest_memory_add(memory, &region, &err), -EEXIST);
	CHECK(!kernel.slots[2].pages && !kernel.slots[3].pages);
	CHECK_EQ(guest_memory_add(memory, &region, &err), 0);
	CHECK_EQ(guest_memory_remove(memory, LARGE_BASE, &err), 0);
	CHECK(!kernel.slots[2].pages && !kernel.slots[3].pages && !kernel.slots[4].pages);
}

TEST_MAIN(TEST(logs_guest_memory_alone), TEST(begins_with_all_pages_where_that_is_cheap), TEST(reports_a_page_once),
	  TEST(loses_no_neighbours), TEST(places_bits), TEST(adds_to_what_others_report),
	  TEST(writes_after_the_log_was_read_stay), TEST(follows_memory_that_appears),
	  TEST(clears_nothing_where_nothing_was_written), TEST(a_failure_is_told),
	  TEST(a_start_that_fails_leaves_nothing_logged), TEST(large_memory_is_divided),
	  TEST(a_part_that_is_refused_takes_all_away), TEST(the_largest_memory_has_few_slots))
