/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/kvm_dirty and kvm_ring: KVM's log of written pages as a dirty source, and its rings, against a KVM of the test's own: the
 * ioctl() below keeps a log for each slot, and checks what the kernel checks. Each case runs with the log that reading
 * clears, with the one that is cleared by us, and with two small rings in turns, which fill up and wrap around in some cases.
 */
#include "tests/unit/test.h"
#include "core/bitmap.h"
#include "vmm/kvm/kvm.h"

#include <stdarg.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGES 1000 /* of the first slot: not whole words */
#define BASE 0x100000ull
#define SECOND_BASE 0x40000000ull
#define SECOND_PAGES 64
#define LONGS 16
#define RING (-1)
#define ENTRIES 256u
#define FULL (ENTRIES - 20) /* the kernel keeps some for what a vCPU writes before it is out */

static struct {
	int manual; /* what KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 says */
	int ring_caps[3]; /* what KVM_CAP_DIRTY_LOG_RING, its ACQ_REL and WITH_BITMAP say */
	uint32_t enabled; /* the one that was enabled */
	bool ring, fail_enable, fail_reset;
	unsigned int interrupted; /* the reset ends after so many entries and forgets the last one's page */
	bool sleeps;              /* ... and in doing so */
	bool manual_on, fail_get, fail_clear;
	int fail_flags; /* the so-manieth slot cannot be logged */
	struct {
		uint64_t pages;
		bool logged;
		unsigned long log[LONGS]; /* with rings: pages that may be written without an entry */
	} slots[8];
	struct {
		int fd; /* the vCPU's */
		struct kvm_dirty_gfn *entries;
		uint32_t next, reset;
	} rings[2];
	unsigned int gets, clears;
} kernel;

static struct kvm kvm;
static struct dirty_source *source;
static unsigned long bitmap[LONGS];
static struct err err;

static int set_region(const struct kvm_userspace_memory_region *region)
{
	bool log = region->flags & KVM_MEM_LOG_DIRTY_PAGES;

	if (log && !kernel.slots[region->slot].logged) {
		if (kernel.fail_flags && --kernel.fail_flags == 0) {
			errno = ENOMEM;
			return -1;
		}
		memset(kernel.slots[region->slot].log, !kernel.ring && kernel.manual_on && kernel.manual & KVM_DIRTY_LOG_INITIALLY_SET ? 0xff : 0,
		       sizeof(kernel.slots[0].log));
	}
	kernel.slots[region->slot].pages = region->memory_size / GUEST_PAGE_SIZE;
	kernel.slots[region->slot].logged = log;
	return 0;
}

static int get_log(const struct kvm_dirty_log *arg)
{
	size_t bytes = bitmap_longs(kernel.slots[arg->slot].pages) * sizeof(long);

	kernel.gets++;
	if (kernel.ring || kernel.fail_get || !kernel.slots[arg->slot].logged) {
		errno = kernel.ring ? ENXIO : kernel.fail_get ? ENOMEM : ENOENT;
		return -1;
	}
	memcpy(arg->dirty_bitmap, kernel.slots[arg->slot].log, bytes);
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

static void protect(const struct kvm_dirty_gfn *entry)
{
	if (entry->slot < ARRAY_SIZE(kernel.slots) && entry->offset < kernel.slots[entry->slot].pages)
		kernel.slots[entry->slot].log[entry->offset / 64] &= ~(1ul << entry->offset % 64);
}

static int reset_rings(void)
{
	unsigned int count = 0;
	sigset_t blocked;

	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	CHECK(sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGRTMIN + 1));
	if (kernel.fail_reset) {
		errno = EIO;
		return -1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kernel.rings); i++)
		for (;;) {
			struct kvm_dirty_gfn *entry = &kernel.rings[i].entries[kernel.rings[i].reset % ENTRIES];

			if (!(entry->flags & KVM_DIRTY_GFN_F_RESET))
				break;
			kernel.rings[i].reset++;
			entry->flags = 0;
			if (++count == kernel.interrupted) {
				usleep(kernel.sleeps ? 1000 : 0);
				return (int)count;
			}
			protect(entry);
		}
	return (int)count;
}

static int check_extension(unsigned long which)
{
	switch (which) {
	case KVM_CAP_DIRTY_LOG_RING:
		return kernel.ring_caps[0];
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return kernel.ring_caps[1];
	case 225: /* KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, which older headers lack */
		return kernel.ring_caps[2];
	default:
		return kernel.manual;
	}
}

static int enable(const struct kvm_enable_cap *cap)
{
	bool ring = cap->cap != KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;

	CHECK(!kernel.ring); /* neither twice nor the log beside it */
	if (ring && (kernel.fail_enable || cap->args[0] != ENTRIES * sizeof(struct kvm_dirty_gfn))) {
		errno = EINVAL;
		return -1;
	}
	kernel.enabled = cap->cap;
	kernel.ring = ring;
	kernel.manual_on = !ring;
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
	case KVM_RESET_DIRTY_RINGS:
		return reset_rings();
	case KVM_CHECK_EXTENSION:
		return check_extension((unsigned long)arg);
	case KVM_ENABLE_CAP:
		return enable(arg);
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
	kvm_ring_unmap(&kvm);
	for (size_t i = 0; kernel.ring && i < ARRAY_SIZE(kernel.rings); i++) {
		munmap(kernel.rings[i].entries, ENTRIES * sizeof(struct kvm_dirty_gfn));
		fd_close(&kernel.rings[i].fd);
	}
	guest_memory_destroy(take_ptr(memory));
	source = NULL;
	memset(&kernel, 0, sizeof(kernel));
}

/* The memory that a vCPU shares with us: its ring is behind 64 pages. */
static void make_ring(size_t i)
{
	size_t size = ENTRIES * sizeof(struct kvm_dirty_gfn);

	kernel.rings[i].fd = memfd_create("vcpu", MFD_CLOEXEC);
	CHECK_EQ(ftruncate(kernel.rings[i].fd, (off_t)(64 * 4096 + size)), 0);
	kernel.rings[i].entries = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, kernel.rings[i].fd, 64 * 4096);
	CHECK(kernel.rings[i].entries != MAP_FAILED);
	CHECK_EQ(kvm_ring_map(&kvm, kernel.rings[i].fd, &err), 0);
}

/* A VM with one slot of guest memory and one mapping that is none. */
static void begin(int manual)
{
	end();
	memset(bitmap, 0, sizeof(bitmap));
	kernel.manual = manual == RING ? 3 : manual;
	memory = guest_memory_create();
	kvm = (struct kvm){.fd = -1, .vm_fd = -1};
	pthread_mutex_init(&kvm.lock, NULL);
	source = kvm_dirty_source(&kvm);
	if (manual == RING) {
		kernel.ring_caps[0] = kernel.ring_caps[1] = ENTRIES * sizeof(struct kvm_dirty_gfn);
		CHECK_EQ(kvm_ring_enable(&kvm, &err), 0);
		make_ring(0);
		make_ring(1);
	}
	CHECK_EQ(kvm_add_memory(&kvm, memory, &err), 0);
	add_memory(BASE, PAGES);
	CHECK_EQ(kvm_map(&kvm, 0xc0000000, 0x10000, (void *)0x7000000, &err), 0);
}

/* A vCPU's entry; one whose ring is as good as full has it emptied first. */
static void push(size_t vcpu, uint32_t slot, uint64_t offset)
{
	struct kvm_dirty_gfn *entry;

	if (kernel.rings[vcpu].next - kernel.rings[vcpu].reset >= FULL)
		CHECK_EQ(kvm_ring_full(&kvm, (unsigned int)vcpu), 0);
	entry = &kernel.rings[vcpu].entries[kernel.rings[vcpu].next++ % ENTRIES];
	CHECK_EQ(entry->flags, 0);
	*entry = (struct kvm_dirty_gfn){.flags = KVM_DIRTY_GFN_F_DIRTY, .slot = slot, .offset = offset};
}

/* Three pages in four are written by the first vCPU. */
static void guest_writes(unsigned int slot, size_t page)
{
	if (kernel.ring && kernel.slots[slot].logged && !bitmap_test(kernel.slots[slot].log, page))
		push(page % 4 == 3, slot, page);
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
	0, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET, RING,
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

/* ---- what rings alone can do ---- */

static void ring_takes_the_better_of_two(void)
{
	begin(RING);
	CHECK_EQ(kernel.enabled, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
	CHECK_EQ(kvm.ring_entries, ENTRIES);
	end();
	kvm = (struct kvm){.vm_fd = -1};
	kernel.ring_caps[0] = ENTRIES * sizeof(struct kvm_dirty_gfn);
	CHECK_EQ(kvm_ring_enable(&kvm, &err), 0);
	CHECK_EQ(kernel.enabled, KVM_CAP_DIRTY_LOG_RING);
	kernel.ring = false;
}

static void no_ring_is_told(void)
{
	begin(0);
	CHECK_EQ(kvm_ring_enable(&kvm, &err), -ENOTSUP);
	kernel.ring_caps[1] = ENTRIES * sizeof(struct kvm_dirty_gfn);
	kernel.ring_caps[2] = 1; /* this kernel also writes where no ring tells */
	CHECK_EQ(kvm_ring_enable(&kvm, &err), -ENOTSUP);
	kernel.ring_caps[2] = 0;
	kernel.fail_enable = true;
	CHECK_EQ(kvm_ring_enable(&kvm, &err), -EINVAL);
	CHECK_EQ(kvm.ring_entries, 0);
	CHECK_EQ(kvm_ring_map(&kvm, -1, &err), 0); /* nothing to map */
	begin(RING);
	CHECK_EQ(kvm_ring_map(&kvm, -1, &err), -EBADF);
	CHECK_EQ(kvm.ring_count, 2);
}

/* Slots that are gone, that are another's by now, and numbers that never were. */
static void ring_entries_of_what_is_gone_are_passed_over(void)
{
	begin_clean(RING);
	add_memory(SECOND_BASE, SECOND_PAGES);
	guest_writes(2, 60);
	push(1, 0, PAGES);
	push(1, 0, UINT64_MAX);
	push(1, 1, 0);
	push(1, 7, 0);
	push(1, KVM_SLOTS, 0);
	push(1, 1 << 16, 5);
	push(1, UINT32_MAX, 0);
	guest_writes(0, 7);
	CHECK_EQ(guest_memory_remove(memory, SECOND_BASE, &err), 0);
	add_memory(SECOND_BASE, 32);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(reported(), 1);
	CHECK(bitmap_test(bitmap, 7));
	CHECK_EQ(kernel.rings[1].reset, kernel.rings[1].next);
}

static void ring_is_emptied_when_nobody_asks(void)
{
	begin_clean(RING);
	for (size_t page = 0; page < 100; page++)
		guest_writes(0, page);
	source->ops->stop(source);
	CHECK_EQ(kernel.rings[0].reset, kernel.rings[0].next);
	CHECK_EQ(source->ops->start(source, &err), 0);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(reported(), 0);
}

static void ring_failure_is_told(void)
{
	begin_clean(RING);
	guest_writes(0, 1);
	kernel.fail_reset = true;
	CHECK_EQ(collect(0, PAGES), -EIO);
	CHECK_EQ(kvm_ring_full(&kvm, 0), -EIO);
	kernel.fail_reset = false;
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK(bitmap_test(bitmap, 1));
	guest_writes(0, 1);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(bitmap[0], 2);
}

/* Pages whose protection was forgotten count as written until they are protected again. */
static void an_interrupted_reset_loses_nothing(void)
{
	static const unsigned int after[] = {1, 3, 9}; /* of nine in the first ring */

	for (size_t i = 0; i < 2 * ARRAY_SIZE(after); i++) {
		begin_clean(RING);
		for (size_t page = 0; page < 12; page++)
			guest_writes(0, page);
		kernel.interrupted = after[i / 2];
		kernel.sleeps = true;
		CHECK_EQ(i % 2 ? kvm_ring_full(&kvm, 0) : collect(0, 64), 0);
		kernel.interrupted = 0;
		guest_writes(0, 2);
		CHECK_EQ(collect(0, 64), 0);
		CHECK(bitmap_test(bitmap, 2) && (i % 2 == 0 || reported() == 64));
		CHECK_EQ(collect(64, PAGES - 64), 0);
		CHECK_EQ(reported(), PAGES - 64);
		CHECK_EQ(collect(0, PAGES), 0);
		CHECK_EQ(reported(), 0);
		for (size_t page = 0; page < 12; page++)
			guest_writes(0, page);
		CHECK_EQ(collect(0, PAGES), 0);
		CHECK_EQ(reported(), 12);
	}
}

static void a_slot_that_cannot_be_protected_again_is_told(void)
{
	begin_clean(RING);
	guest_writes(0, 0);
	kernel.interrupted = 1;
	kernel.sleeps = true;
	kernel.fail_flags = 1;
	CHECK_EQ(collect(0, PAGES), -ENOMEM);
	CHECK_EQ(collect(0, PAGES), 0);
	CHECK_EQ(reported(), PAGES);
}

/* A kernel that writes over its entries: no migration, but the vCPU is not kept from the guest. */
static void an_overrun_ring_is_told(void)
{
	unsigned int exits = 0;

	begin_clean(RING);
	for (size_t page = 0; page < 3 * ENTRIES; page++)
		kernel.rings[0].entries[kernel.rings[0].next++ % ENTRIES] =
			(struct kvm_dirty_gfn){.flags = KVM_DIRTY_GFN_F_DIRTY, .offset = page};
	while (kernel.rings[0].next - kernel.rings[0].reset >= FULL && exits++ < 20)
		CHECK_EQ(kvm_ring_full(&kvm, 0), 0);
	CHECK(exits < 20 && kernel.rings[0].next - kernel.rings[0].reset < FULL);
	CHECK_EQ(collect(0, PAGES), -EOVERFLOW);
	CHECK(strstr(err.text, "--dirty-tracking log"));
	source->ops->stop(source);
	CHECK_EQ(source->ops->start(source, &err), 0);
	CHECK_EQ(collect(0, PAGES), -EOVERFLOW);
	end();
}

TEST_MAIN(TEST(logs_guest_memory_alone), TEST(begins_with_all_pages_where_that_is_cheap), TEST(reports_a_page_once),
	  TEST(loses_no_neighbours), TEST(places_bits), TEST(adds_to_what_others_report),
	  TEST(writes_after_the_log_was_read_stay), TEST(follows_memory_that_appears),
	  TEST(clears_nothing_where_nothing_was_written), TEST(a_failure_is_told),
	  TEST(a_start_that_fails_leaves_nothing_logged), TEST(ring_takes_the_better_of_two), TEST(no_ring_is_told),
	  TEST(ring_entries_of_what_is_gone_are_passed_over), TEST(ring_is_emptied_when_nobody_asks),
	  TEST(ring_failure_is_told), TEST(an_interrupted_reset_loses_nothing),
	  TEST(a_slot_that_cannot_be_protected_again_is_told), TEST(an_overrun_ring_is_told))
