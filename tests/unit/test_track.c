/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/track: diffs have what was written since their parent, whoever else has collected meanwhile; what a
 * snapshot that is not committed has taken is in the next one.
 */
#include "vmm/snapshot/track.h"
#include "tests/unit/test.h"

#include <sys/mman.h>

#include "core/bitmap.h"

#define PAGE GUEST_PAGE_SIZE
#define PAGES 1000u
#define SIZE (PAGES * PAGE)

static struct guest_memory *memory;
static struct dirty_set dirty;
static struct guest_file base;
static uint8_t *ram;
static struct track *track;
static struct err err;
static const uint8_t id_a[16] = {1}, id_b[16] = {2}, id_base[16] = {3}, none[16];

static void begin(bool restored)
{
	struct guest_region region = {.size = SIZE, .fd = -1};

	dirty = (struct dirty_set){0};
	memory = guest_memory_create();
	base = (struct guest_file){.fd = -1};
	if (restored) {
		base.fd = memfd_create("base", MFD_CLOEXEC);
		CHECK_EQ(ftruncate(base.fd, SIZE), 0);
		region.base = &base;
	}
	ram = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | (restored ? 0 : MAP_ANONYMOUS), base.fd, 0);
	region.host = ram;
	CHECK_EQ(guest_memory_add(memory, &region, NULL), 0);
	CHECK_EQ(dirty_set_add(&dirty, guest_memory_dirty_source(memory), NULL), 0);
	CHECK_EQ(track_create(memory, &dirty, restored ? id_base : NULL, &track, &err), 0);
}

static void end(void)
{
	track_destroy(track);
	CHECK_EQ(dirty.users, 0);
	CHECK(!dirty.observer);
	guest_memory_destroy(memory);
	munmap(ram, SIZE);
	if (base.fd >= 0)
		close(base.fd);
}

static void write_page(size_t page)
{
	ram[page * PAGE] = 1;
	guest_memory_dirty(memory, page * PAGE, PAGE);
}

static const struct snapshot_request full = {0}, tracked = {.track = true}, diff = {.diff = true},
					 live_diff = {.diff = true, .live = true}, tracked_diff = {.diff = true, .track = true};

/* One of others of the sources: a migration that fails, for example. */
static void somebody_else_collects(void)
{
	unsigned long bits[PAGES / 64 + 1] = {0};

	CHECK_EQ(dirty_set_start(&dirty, &err), 0);
	CHECK_EQ(dirty_set_collect(&dirty, 0, SIZE, bits, &err), 0);
	dirty_set_stop(&dirty);
}

/* A snapshot up to its end; the pages of a diff, or NULL. */
static const struct page_set *take(const struct snapshot_request *request)
{
	const struct page_set *first = NULL, *pages = NULL;

	CHECK_EQ(track_begin(track, request, &err), 0);
	CHECK_EQ(track_settle(track, &err), 0);
	if (request->live) {
		CHECK_EQ(track_first(track, &first, &err), 0);
		somebody_else_collects(); /* the rounds */
	}
	CHECK_EQ(track_take(track, &pages, &err), 0);
	return pages;
}

static bool are(const struct page_set *set, size_t count, const size_t pages[])
{
	size_t regions;
	const unsigned long *bitmap = page_set_regions(set, &regions)[0].bitmap;

	for (size_t i = 0; i < count; i++)
		if (!bitmap_test(bitmap, pages[i]))
			return false;
	return page_set_count(set) == count;
}

#define ARE(set, ...) are(set, sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t), (size_t[]){__VA_ARGS__})

static void a_diff_has_what_was_written_since_its_parent(void)
{
	begin(false);
	CHECK_EQ(track_begin(track, &diff, &err), -ENOTSUP);
	CHECK(strstr(err.text, "--track"));
	write_page(1);
	CHECK(!take(&tracked));
	CHECK(memcmp(track_parent(track), none, 16) == 0);
	write_page(2);
	track_commit(track, id_a);
	CHECK(track_on(track));
	write_page(3);
	CHECK(ARE(take(&diff), 2, 3));
	CHECK(memcmp(track_parent(track), id_a, 16) == 0);
	track_commit(track, id_b);
	write_page(999);
	CHECK(ARE(take(&live_diff), 999));
	CHECK(memcmp(track_parent(track), id_b, 16) == 0);
	track_commit(track, id_a);
	CHECK_EQ(page_set_count(take(&diff)), 0);
	track_commit(track, id_b);
	end();
}

static void what_was_taken_in_vain_is_put_back(void)
{
	static const struct snapshot_request *const requests[] = {&diff, &live_diff, &full, &tracked};

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		begin(false);
		take(&tracked);
		track_commit(track, id_a);
		write_page(5);
		take(requests[i]);
		write_page(6);
		track_abort(track);
		write_page(7);
		CHECK_EQ(track_begin(track, requests[i], &err), 0); /* fails before it takes any */
		track_abort(track);
		CHECK(ARE(take(&diff), 5, 6, 7));
		CHECK(memcmp(track_parent(track), id_a, 16) == 0);
		end();
	}
}

static void others_that_collect_take_nothing_away(void)
{
	begin(false);
	take(&tracked);
	track_commit(track, id_a);
	write_page(10);
	somebody_else_collects();
	write_page(11);
	CHECK(ARE(take(&diff), 10, 11));
	end();
}

static void sources_stop_after_a_snapshot_that_does_not_ask(void)
{
	begin(false);
	take(&tracked);
	track_abort(track);
	CHECK(!track_on(track) && !dirty.users); /* as before */
	take(&tracked);
	track_commit(track, id_a);
	CHECK(!take(&full));
	track_commit(track, id_b);
	CHECK(!track_on(track) && !dirty.users);
	CHECK_EQ(track_begin(track, &diff, &err), -ENOTSUP);
	end();
}

static void a_mapped_machine_has_its_own_pages(void)
{
	begin(true);
	write_page(1);
	CHECK(ram[2 * PAGE] == 0); /* only read */
	CHECK(ARE(take(&diff), 1));
	CHECK(memcmp(track_parent(track), id_base, 16) == 0);
	track_commit(track, id_a);
	CHECK(!track_on(track));
	write_page(3);
	CHECK(ARE(take(&diff), 1, 3)); /* still of what it was restored from */
	CHECK(memcmp(track_parent(track), id_base, 16) == 0);
	track_abort(track);
	CHECK(ARE(take(&live_diff), 1, 3));
	CHECK_EQ(dirty.users, 1);
	track_commit(track, id_b);
	CHECK_EQ(dirty.users, 0);
	CHECK(ARE(take(&tracked_diff), 1, 3));
	write_page(4);
	track_commit(track, id_a);
	write_page(1);
	CHECK(ARE(take(&diff), 1, 4));
	CHECK(memcmp(track_parent(track), id_a, 16) == 0);
	end();
}

/* A source that begins with everything, as KVM does. */
static unsigned long kvm_log[PAGES / 64 + 1];

static int kvm_start(struct dirty_source *source, struct err *why)
{
	memset(kvm_log, 0xff, sizeof(kvm_log));
	return 0;
}

static void kvm_stop(struct dirty_source *source)
{
}

static int kvm_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap, struct err *why)
{
	bitmap_take(kvm_log, gpa / PAGE, size / PAGE, bitmap);
	return 0;
}

static void a_log_that_begins_with_everything_means_nothing(void)
{
	static const struct dirty_source_ops ops = {kvm_start, kvm_stop, kvm_collect};
	struct dirty_source kvm = {.name = "KVM", .ops = &ops};

	begin(false);
	CHECK_EQ(dirty_set_add(&dirty, &kvm, NULL), 0);
	take(&tracked);
	track_commit(track, id_a);
	write_page(8);
	bitmap_set(kvm_log, 9);
	CHECK(ARE(take(&diff), 8, 9));
	end();
	begin(true);
	CHECK_EQ(dirty_set_add(&dirty, &kvm, NULL), 0);
	write_page(8);
	CHECK(ARE(take(&live_diff), 8));
	end();
}

static int never_start(struct dirty_source *source, struct err *e)
{
	CHECK(!"it is started");
	return 0;
}

/* vhost-vsock would be dead from the first snapshot to the end of tracking. */
static void what_would_stand_still_is_not_tracked(void)
{
	static const struct dirty_source_ops ops = {.start = never_start};
	struct dirty_source source = {.name = "vhost-vsock", .ops = &ops, .halts = true};

	begin(false);
	CHECK_EQ(dirty_set_add(&dirty, &source, &err), 0);
	CHECK_EQ(track_begin(track, &tracked, &err), -ENOTSUP);
	CHECK_STR(err.text, "--track: vhost-vsock cannot tell what it writes, and would stand still; run the machine with a "
			    "socket for it, or leave --track out");
	CHECK(!track_on(track));
	CHECK(!take(&full));
	track_commit(track, id_a);
	dirty.first = dirty.first->next;
	end();
}

TEST_MAIN(TEST(a_diff_has_what_was_written_since_its_parent), TEST(what_was_taken_in_vain_is_put_back),
	  TEST(what_would_stand_still_is_not_tracked),
	  TEST(others_that_collect_take_nothing_away), TEST(sources_stop_after_a_snapshot_that_does_not_ask),
	  TEST(a_mapped_machine_has_its_own_pages), TEST(a_log_that_begins_with_everything_means_nothing))
