/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vfio/dirty_log and dma_log: every device by its best log, results joined, nothing lost. Most cases are faults that other
 * programs have had: coverage as one flag of a container, mixed trackers of which one is never asked, ranges reported
 * that were never started, bits lost with a device that leaves.
 */
#include "tests/unit/vfio_bench.h"

static struct vfio_bench b;
static struct vfio_device *one, *two;

/* Devices 0 and 1 on IOMMUs of their own, 2 shares that of 0. */
static void setup(bool first, bool second)
{
	int iommu;

	bench_init(&b);
	iommu = fake_iommu(b.fake, first);
	fake_device(b.fake, "0000:01:00.0", fake_group(b.fake), iommu);
	fake_device(b.fake, "0000:02:00.0", fake_group(b.fake), fake_iommu(b.fake, second));
	fake_device(b.fake, "0000:03:00.0", fake_group(b.fake), iommu);
	bench_space(&b, NULL);
}

static void dma(int device, uint64_t gpa, uint64_t size)
{
	CHECK(fake_dma(b.fake, &b.fake->devices[device], gpa, size));
}

static bool is_dirty(uint64_t gpa)
{
	return bitmap_test(bench_bitmap, gpa / 4096);
}

static void add_ram(uint64_t gpa)
{
	struct guest_region region = {.gpa = gpa, .size = MIB(4), .host = b.host, .fd = -1};

	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
}

static void the_iommu_tracks(void)
{
	setup(true, true);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	dma(0, 0x1000, 1);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	dma(0, 0x5000, 0x3000);
	dma(0, HIGH_GPA + MIB(1), 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 3);
	CHECK(is_dirty(0x5000) && is_dirty(0x7000));
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	CHECK_EQ(bench_collect(&b, HIGH_GPA, HIGH_SIZE), 1);
	CHECK(is_dirty(MIB(1)));
	/* A request that starts in the middle of a long. */
	dma(0, 0x9000, 0x2000);
	CHECK_EQ(bench_collect(&b, 0x9000, 0x1000), 1);
	CHECK(is_dirty(0));
	CHECK_EQ(bench_collect(&b, 0x3000, 0x10000), 1);
	CHECK(is_dirty(0xa000 - 0x3000));
	dirty_set_stop(&b.dirty);
	CHECK(!b.fake->objects[vfio_device_ids(one).hwpt - 1].log.on);
	vfio_device_close(one);
	bench_done(&b);
}

static void a_shared_page_table_is_asked_once(void)
{
	struct fake_object *hwpt;

	setup(true, true);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:03:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	hwpt = &b.fake->objects[vfio_device_ids(one).hwpt - 1];
	b.fake->counted = IOMMUFD_UAPI_SET_DIRTY;
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(b.fake->count, 1);
	dma(0, 0x1000, 1);
	dma(2, 0x2000, 1);
	b.fake->counted = IOMMUFD_UAPI_GET_DIRTY;
	b.fake->count = 0;
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 2);
	CHECK_EQ(b.fake->count, 1);
	/* The first one leaves: the log goes on for the other, and what the first wrote is not lost. */
	dma(0, 0x3000, 1);
	dma(2, 0x4000, 1);
	vfio_device_close(one);
	CHECK(hwpt->log.on);
	dma(2, 0x5000, 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 3);
	dirty_set_stop(&b.dirty);
	CHECK(!hwpt->log.on);
	vfio_device_close(two);
	bench_done(&b);
}

static size_t count_sources(void)
{
	size_t count = 0;

	for (const struct dirty_source *source = b.dirty.first; source; source = source->next)
		count++;
	return count;
}

/* However many devices use it: one source beside guest memory's own, named as the one that is there longest. */
static void a_log_is_one_source(void)
{
	struct vfio_device *three;

	setup(true, false);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:03:00.0", VFIO_WANT_IOMMUFD, &three), 0);
	CHECK(one->dirty.log == three->dirty.log);
	CHECK_EQ(count_sources(), 2);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK(two->dirty.log == &b.space->logs.nobody);
	CHECK_EQ(count_sources(), 3);
	CHECK_STR(one->dirty.log->source.name, "0000:01:00.0");
	vfio_device_close(one);
	CHECK_EQ(count_sources(), 3);
	CHECK_STR(three->dirty.log->source.name, "0000:03:00.0");
	vfio_device_close(three);
	CHECK_EQ(count_sources(), 2);
	vfio_device_close(two);
	CHECK_EQ(count_sources(), 1);
	bench_done(&b);
}

/* Both of two devices that nobody covers are said, the second one also when it is plugged in under tracking. */
static void one_that_nobody_covers_is_told_when_it_comes(void)
{
	setup(false, false);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(bench_logged(&b, "neither the device nor its IOMMU tracks"), 1);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(bench_logged(&b, "vfio 0000:02:00.0: neither the device nor its IOMMU tracks"), 1);
	CHECK_EQ(count_sources(), 2);
	/* The first one leaves, and nothing that it wrote is forgotten. */
	vfio_device_close(one);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), LOW_SIZE / 4096);
	dirty_set_stop(&b.dirty);
	vfio_device_close(two);
	bench_done(&b);
}

/* A log that cannot be started keeps the device out that would have used it first, and nobody else. */
static void a_device_whose_log_does_not_start_is_not_let_in(void)
{
	setup(true, true);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	b.fake->fail_request = IOMMUFD_UAPI_SET_DIRTY;
	b.fake->fail_request_errno = -ENOSPC;
	b.fake->fail_times = 1;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), -ENOSPC);
	CHECK_HAS(b.err.text, "0000:02:00.0: start the dirty log of the IOMMU (hwpt)");
	CHECK(!b.space->logs.used->next && b.space->logs.used == one->dirty.log);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	dma(1, 0x1000, 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 1);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

/* One tracks, the other does not: the second makes everything dirty, in every round, and it is said. */
static void what_nobody_covers_is_dirty(void)
{
	setup(true, false);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(bench_logged(&b, "vfio 0000:02:00.0: neither the device nor its IOMMU tracks"), 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), LOW_SIZE / 4096);
	CHECK_EQ(bench_collect(&b, 0x3000, 0x5000), 5);
	CHECK(is_dirty(0) && is_dirty(0x4000));
	CHECK_EQ(bench_collect(&b, 0x41000, 0x41000), 0x41);
	/* When it leaves, what it may have written is still dirty, once. Coverage is a device's, not the container's. */
	vfio_device_close(two);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), LOW_SIZE / 4096);
	dma(0, 0x1000, 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 1);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

/* A has only its own log, B only its IOMMU: each is asked, neither is forgotten. */
static void mixed_trackers_are_joined(void)
{
	setup(false, true);
	b.fake->devices[0].can_log = true;
	b.fake->devices[0].log_page_size = 65536;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_DEVICE);
	CHECK_EQ(vfio_device_coverage(two), VFIO_COVERAGE_HWPT);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(one->dma_log.page_size, 65536);
	dma(0, 0x1000, 1);
	dma(1, 0x2000, 1);
	CHECK_EQ(guest_memory_write(b.memory, 0x3000, "x", 1), 0);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 3);
	CHECK(is_dirty(0x1000) && is_dirty(0x2000) && is_dirty(0x3000));
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	dirty_set_stop(&b.dirty);
	CHECK(!b.fake->devices[0].log.on);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

/* A device's own log beats its IOMMU, which then need not be started, unless somebody else on it needs it. */
static void the_best_tracker_is_started(void)
{
	struct vfio_device_options options = {.device = "0000:03:00.0", .backend = VFIO_WANT_IOMMUFD, .no_device_log = true};
	struct fake_object *hwpt;

	setup(true, true);
	b.fake->devices[0].can_log = b.fake->devices[2].can_log = true;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	hwpt = &b.fake->objects[vfio_device_ids(one).hwpt - 1];
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK(b.fake->devices[0].log.on && !hwpt->log.on);
	/* Attached while tracking goes on: its log is started before it can write. */
	CHECK_EQ(vfio_device_open(b.space, &options, &two, &b.err), 0);
	CHECK_EQ(vfio_device_coverage(two), VFIO_COVERAGE_HWPT);
	CHECK(hwpt->log.on && !b.fake->devices[2].log.on);
	dma(2, 0x1000, 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 1);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

/* What is reported is what was started: two spans, the same objects. */
static void the_log_is_asked_for_what_it_was_started_for(void)
{
	struct guest_region region = {.gpa = GIB(8), .size = MIB(4), .fd = -1};

	setup(false, false);
	region.host = b.host;
	b.fake->devices[0].can_log = true;
	b.fake->devices[0].log_max_ranges = 2;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(b.fake->devices[0].log_range_count, 2);
	CHECK_EQ(b.fake->devices[0].log_ranges[1].iova, HIGH_GPA);
	CHECK_EQ(b.fake->devices[0].log_ranges[1].length, HIGH_SIZE);
	/* Memory added now was never started: the device is not asked for it, all of it counts, and it is said once. */
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	CHECK_EQ(bench_collect(&b, GIB(8), MIB(4)), MIB(4) / 4096);
	CHECK_EQ(bench_collect(&b, GIB(8), MIB(4)), MIB(4) / 4096);
	CHECK_EQ(bench_logged(&b, "memory added after its DMA log was started counts as dirty"), 1);
	dma(0, HIGH_GPA, 1);
	CHECK_EQ(bench_collect(&b, HIGH_GPA, HIGH_SIZE), 1);
	/* From the next start on it is covered. */
	dirty_set_stop(&b.dirty);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(b.fake->devices[0].log_range_count, 2);
	CHECK_EQ(bench_collect(&b, GIB(8), MIB(4)), 0);
	dma(0, GIB(8) + 0x1000, 1);
	CHECK_EQ(bench_collect(&b, GIB(8), MIB(4)), 1);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

/* A larger region takes the place of a logged one: what the log was not started for is not asked of it. */
static void a_region_that_has_grown_is_asked_for_in_part(void)
{
	struct guest_region region = {.gpa = GIB(8), .size = MIB(4), .fd = -1};
	const struct vfio_device *who;

	setup(false, false);
	region.host = b.host;
	b.fake->devices[0].can_log = true;
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(vfio_device_untracked(b.space, &who), 0);
	CHECK(!who);
	guest_memory_remove(b.memory, GIB(8), NULL);
	region.gpa = GIB(8) - MIB(1);
	region.size = MIB(8);
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	dma(0, GIB(8) + 0x1000, 1);
	dma(0, GIB(8) + MIB(5), 1);
	CHECK_EQ(bench_collect(&b, GIB(8) - MIB(1), MIB(8)), MIB(3) / 4096 + 1);
	CHECK(is_dirty(MIB(1) + 0x1000) && is_dirty(MIB(6)) && is_dirty(MIB(5)) && !is_dirty(MIB(5) - 0x1000));
	CHECK_EQ(vfio_device_untracked(b.space, &who), MIB(3));
	CHECK(who == one);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

/* While rounds follow it is not sent each time. */
static void what_nobody_covers_waits_for_the_last_round(void)
{
	const struct vfio_device *who;

	setup(true, false);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(vfio_device_untracked(b.space, &who), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(vfio_device_untracked(b.space, &who), LOW_SIZE + HIGH_SIZE);
	CHECK(who == two);
	b.dirty.rounds_follow = true;
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	dma(0, 0x2000, 1);
	dma(1, 0x3000, 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	CHECK_EQ(vfio_device_untracked(b.space, &who), LOW_SIZE + HIGH_SIZE);
	b.dirty.rounds_follow = false;
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), LOW_SIZE / 4096);
	CHECK_EQ(bench_collect(&b, HIGH_GPA, HIGH_SIZE), HIGH_SIZE / 4096);
	b.dirty.rounds_follow = true;
	vfio_device_close(two);
	CHECK_EQ(bench_collect(&b, HIGH_GPA, HIGH_SIZE), HIGH_SIZE / 4096);
	CHECK_EQ(bench_collect(&b, HIGH_GPA, HIGH_SIZE), 0);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

/* Memory added while an IOMMU tracks is covered by it at once. */
static void hot_added_memory_is_tracked_by_the_iommu(void)
{
	struct guest_region region = {.gpa = GIB(8), .size = MIB(4), .fd = -1};

	setup(true, true);
	region.host = b.host;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	CHECK_EQ(bench_collect(&b, GIB(8), MIB(4)), 0);
	dma(0, GIB(8) + 0x3000, 1);
	CHECK_EQ(bench_collect(&b, GIB(8), MIB(4)), 1);
	CHECK_EQ(guest_memory_remove(b.memory, GIB(8), &b.err), 0);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

static void fail_once(unsigned long request, int code)
{
	b.fake->fail_request = request;
	b.fake->fail_request_errno = code;
	b.fake->fail_times = 1;
}

/* The second start fails: the first is undone, nobody else is touched, and the errno is the kernel's. */
static void a_failed_start_undoes_what_was_started(void)
{
	setup(true, true);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	b.fake->counted = IOMMUFD_UAPI_SET_DIRTY;
	b.fake->fail_after = 1;
	fail_once(IOMMUFD_UAPI_SET_DIRTY, -ENOSPC);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), -ENOSPC);
	CHECK_HAS(b.err.text, "start the dirty log of the IOMMU (hwpt)");
	CHECK_EQ(b.fake->count, 3); /* on, refused, off again */
	CHECK(!b.fake->objects[vfio_device_ids(one).hwpt - 1].log.on);
	CHECK(!b.fake->objects[vfio_device_ids(two).hwpt - 1].log.on);
	CHECK(!one->dirty.log->started && !two->dirty.log->started);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	dirty_set_stop(&b.dirty);
	/* A device that takes fewer ranges than there are says so. */
	vfio_device_close(two);
	b.fake->devices[1].can_log = true;
	b.fake->devices[1].log_max_ranges = 1;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), -E2BIG);
	CHECK_HAS(b.err.text, "0000:02:00.0: start the device's DMA log");
	/* Stopping what never was started does nothing. */
	b.fake->count = 0;
	one->dirty.log->source.ops->stop(&one->dirty.log->source);
	two->dirty.log->source.ops->stop(&two->dirty.log->source);
	CHECK_EQ(b.fake->count, 0);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

/* A log that cannot be read may have lost bits: collect fails, whichever of several it was. */
static void a_failed_report_fails_the_collect(void)
{
	setup(true, true);
	b.fake->devices[1].can_log = true;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	fail_once(IOMMUFD_UAPI_GET_DIRTY, -EFAULT);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), -EFAULT);
	CHECK_HAS(b.err.text, "0000:01:00.0: read the dirty log (hwpt) of 0x0-0x1ffffff");
	fail_once(VFIO_DEVICE_FEATURE, -EIO);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), -EIO);
	CHECK_HAS(b.err.text, "0000:02:00.0: read the dirty log (device log)");
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	/* The device leaves and its log cannot be read: all of it counts, and only as long as somebody has not collected. */
	dma(0, 0x1000, 1);
	fail_once(IOMMUFD_UAPI_GET_DIRTY, -EFAULT);
	vfio_device_close(one);
	CHECK_EQ(bench_logged(&b, "what it wrote to 0x0-0x1ffffff is not known (Bad address): all of it counts as dirty"), 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), LOW_SIZE / 4096);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	CHECK_EQ(bench_collect(&b, HIGH_GPA, HIGH_SIZE), 0);
	dirty_set_stop(&b.dirty);
	vfio_device_close(two);
	bench_done(&b);
}

/* The dirty pages of a range that the log of the first device reports. */
static long collect_log(uint64_t gpa, uint64_t size)
{
	long pages = 0;

	memset(bench_bitmap, 0, sizeof(bench_bitmap));
	CHECK_EQ(one->dirty.log->source.ops->collect(&one->dirty.log->source, gpa, size, bench_bitmap, &b.err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bench_bitmap); i++)
		pages += __builtin_popcountl(bench_bitmap[i]);
	return pages;
}

/* A query across a hole is answered with success and drops what follows: so nothing is asked across one. */
static void holes_hide_nothing(void)
{
	setup(true, true);
	add_ram(LOW_SIZE + MIB(2));
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	dma(0, LOW_SIZE - 4096, 1);
	dma(0, LOW_SIZE + MIB(2), 1);
	CHECK_EQ(collect_log(0, LOW_SIZE + MIB(4)), 2);
	CHECK(is_dirty(LOW_SIZE - 4096) && is_dirty(LOW_SIZE + MIB(2)));
	CHECK_EQ(collect_log(LOW_SIZE, MIB(2)), 0);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

/* Runs that begin anywhere in the bitmap. */
static void bits_fall_where_they_belong(void)
{
	const uint64_t start = LOW_SIZE + KIB(192);

	setup(true, true);
	add_ram(start);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	for (uint64_t gpa = start; gpa < start + KIB(832); gpa += KIB(28)) {
		dma(0, gpa, 1);
		CHECK_EQ(collect_log(0, start + MIB(4)), 1);
		CHECK(is_dirty(gpa));
		dma(0, gpa, 1);
		CHECK_EQ(collect_log(KIB(60), start + MIB(2)), 1);
		CHECK(is_dirty(gpa - KIB(60)));
	}
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

/* Type1 with a mediated device alone knows single pages, and refuses a query that cuts one of its maps. */
static void type1_is_asked_for_whole_maps(void)
{
	struct guest_region region = {.gpa = GIB(8), .size = GIB(3), .fd = -1};

	bench_init(&b);
	region.host = b.host;
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	fake_mdev(b.fake, UUID, fake_group(b.fake));
	b.fake->type1_dirty = true;
	bench_space(&b, NULL);
	CHECK_EQ(bench_open(&b, UUID, VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_TYPE1);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	dma(0, 0x1000, 1);
	dma(0, 0x5000, 1);
	dma(0, MIB(2) - 4096, 1);
	/* Asked for a part of a map: the rest is told later, by the log of guest memory. */
	CHECK_EQ(bench_collect(&b, 0x4000, 0x4000), 1);
	CHECK(is_dirty(0x1000));
	dma(0, GIB(9), 1);
	dma(0, GIB(10), 1);
	CHECK_EQ(bench_collect(&b, GIB(9) - 4096, 3 * 4096), 1);
	CHECK(is_dirty(4096));
	CHECK_EQ(bench_collect(&b, GIB(10), 4096), 1);
	CHECK_EQ(bench_collect(&b, 0, MIB(4)), 2);
	CHECK(is_dirty(0x1000) && is_dirty(MIB(2) - 4096));
	CHECK_EQ(bench_collect(&b, 0, MIB(4)), 0);
	/* What other sources have set stays set, though the kernel writes the whole bitmap here. */
	dma(0, 0x7000, 1);
	CHECK_EQ(one->dirty.log->source.ops->collect(&one->dirty.log->source, 0, MIB(2), bench_bitmap, &b.err), 0);
	CHECK(is_dirty(0x7000));
	dma(0, 0x8000, 1);
	CHECK_EQ(one->dirty.log->source.ops->collect(&one->dirty.log->source, 0, MIB(2), bench_bitmap, &b.err), 0);
	CHECK(is_dirty(0x7000) && is_dirty(0x8000));
	dirty_set_stop(&b.dirty);
	CHECK(!b.fake->containers[0].log.on);
	vfio_device_close(one);
	bench_done(&b);
}

/* The kernel reports all memory where an IOMMU translates, since drivers pin nothing: the log is not asked for that. */
static void type1_follows_no_device_behind_an_iommu(void)
{
	const struct vfio_device *who;

	setup(true, true);
	b.fake->type1_dirty = true;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
	CHECK_EQ(vfio_device_untracked(b.space, &who), LOW_SIZE + HIGH_SIZE);
	CHECK(who == one);
	b.dirty.rounds_follow = true;
	b.fake->counted = VFIO_IOMMU_DIRTY_PAGES;
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(bench_logged(&b, "vfio 0000:01:00.0: neither the device nor its IOMMU tracks"), 1);
	dma(0, 0x1000, 1);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 0);
	b.dirty.rounds_follow = false;
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), LOW_SIZE / 4096);
	dirty_set_stop(&b.dirty);
	CHECK_EQ(b.fake->count, 0);
	vfio_device_close(one);
	bench_done(&b);
}

/* Whichever comes first, the mediated device stays in a container of its own, whose log is exact. */
static void a_mediated_device_keeps_its_log_beside_others(void)
{
	static const char *const names[] = {UUID, "0000:02:00.0"};

	for (int first = 0; first < 2; first++) {
		struct vfio_device *devices[2];

		bench_init(&b);
		fake_mdev(b.fake, UUID, fake_group(b.fake));
		fake_device(b.fake, "0000:02:00.0", fake_group(b.fake), fake_iommu(b.fake, true));
		b.fake->type1_dirty = true;
		bench_space(&b, NULL);
		b.dirty.rounds_follow = true;
		CHECK_EQ(bench_open(&b, names[first], VFIO_WANT_LEGACY, &devices[first]), 0);
		CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
		CHECK_EQ(bench_open(&b, names[!first], VFIO_WANT_LEGACY, &devices[!first]), 0);
		CHECK_EQ(vfio_device_coverage(devices[0]), VFIO_COVERAGE_TYPE1);
		CHECK_EQ(vfio_device_coverage(devices[1]), VFIO_COVERAGE_NONE);
		CHECK(devices[0]->container != devices[1]->container);
		dma(0, 0x5000, 1);
		dma(1, 0x9000, 1);
		CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), 1);
		CHECK(is_dirty(0x5000));
		dirty_set_stop(&b.dirty);
		vfio_device_close(devices[0]);
		vfio_device_close(devices[1]);
		bench_done(&b);
	}
}

/* A bitmap that the kernel does not take is not asked for. */
static void type1_takes_bitmaps_up_to_a_size(void)
{
	bench_init(&b);
	fake_mdev(b.fake, UUID, fake_group(b.fake));
	b.fake->type1_dirty = true;
	b.fake->type1_max_bitmap = 512;
	bench_space(&b, NULL);
	CHECK_EQ(bench_open(&b, UUID, VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(dirty_set_start(&b.dirty, &b.err), 0);
	CHECK_EQ(bench_collect(&b, 0, LOW_SIZE), -E2BIG);
	dirty_set_stop(&b.dirty);
	vfio_device_close(one);
	bench_done(&b);
}

TEST_MAIN(TEST(the_iommu_tracks), TEST(a_shared_page_table_is_asked_once), TEST(a_log_is_one_source),
	  TEST(one_that_nobody_covers_is_told_when_it_comes), TEST(a_device_whose_log_does_not_start_is_not_let_in),
	  TEST(what_nobody_covers_is_dirty),
	  TEST(mixed_trackers_are_joined), TEST(the_best_tracker_is_started),
	  TEST(the_log_is_asked_for_what_it_was_started_for), TEST(a_region_that_has_grown_is_asked_for_in_part),
	  TEST(what_nobody_covers_waits_for_the_last_round), TEST(hot_added_memory_is_tracked_by_the_iommu),
	  TEST(a_failed_start_undoes_what_was_started), TEST(a_failed_report_fails_the_collect), TEST(holes_hide_nothing),
	  TEST(bits_fall_where_they_belong), TEST(type1_is_asked_for_whole_maps),
	  TEST(type1_follows_no_device_behind_an_iommu), TEST(a_mediated_device_keeps_its_log_beside_others),
	  TEST(type1_takes_bitmaps_up_to_a_size))
