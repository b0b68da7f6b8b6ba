/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call to the kernel fails once, for every call that a life of a few devices makes and for several errnos: a step
 * that fails says so in words and changes nothing, the steps after it work on what is there, and at the end no object,
 * descriptor, map or list entry is left.
 */
#include "tests/unit/vfio_bench.h"

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
#define DEVICES 4

static struct vfio_bench b;
static struct vfio_device *devices[DEVICES];
static unsigned int failures; /* steps that reported a failure */

static const char *const names[DEVICES] = {"0000:01:00.0", "0000:01:00.1", UUID, "0000:02:00.0"};

/* Two in one group with a log of the IOMMU, one mediated, and one, the last to come, that logs itself. */
static void setup(bool handed_in)
{
	int first, second, group, iommufd;

	bench_init(&b);
	first = fake_iommu(b.fake, true);
	second = fake_iommu(b.fake, false);
	b.fake->iommus[first].type = IOMMUFD_UAPI_HW_TYPE_VTD;
	b.fake->iommus[first].reserved_start = 0xfee00000;
	b.fake->iommus[first].reserved_last = 0xfeefffff;
	group = fake_group(b.fake);
	fake_device(b.fake, names[0], group, first);
	fake_device(b.fake, names[1], group, first);
	fake_mdev(b.fake, names[2], fake_group(b.fake));
	fake_device(b.fake, names[3], fake_group(b.fake), second)->can_log = true;
	b.fake->devices[0].dma_buf = true;
	b.fake->type1_dirty = true;
	iommufd = handed_in ? fake_open(b.fake, "/dev/iommu") : -1;
	bench_space(&b, handed_in ? &iommufd : NULL);
}

static unsigned int count_devices(void)
{
	unsigned int n = 0;

	for (struct vfio_device *device = b.space->devices; device; device = device->next)
		n++;
	return n;
}

/* Notes a step's result: a failure has words. */
static bool ok(int rc)
{
	if (rc >= 0)
		return true;
	failures++;
	CHECK(b.err.text[0]);
	return false;
}

static void open_one(int i, enum vfio_want want, bool handed_in)
{
	int cdev = -1;
	char path[64];
	struct vfio_device_options options = {.device = names[i], .backend = want};
	unsigned int before = count_devices(), told = (unsigned int)b.told;

	if (handed_in) {
		snprintf(path, sizeof(path), "/dev/vfio/devices/vfio%d", i);
		cdev = fake_open(b.fake, path);
		options.device = NULL;
		options.fd = &cdev;
	}
	devices[i] = NULL;
	b.err.text[0] = 0;
	if (ok(vfio_device_open(b.space, &options, &devices[i], &b.err))) {
		CHECK(fake_mapped(b.fake, &b.fake->devices[i], 0, LOW_SIZE));
		CHECK(fake_mapped(b.fake, &b.fake->devices[i], HIGH_GPA, HIGH_SIZE));
		CHECK_EQ(count_devices(), before + 1);
	} else {
		CHECK(!devices[i] && !b.fake->devices[i].fd);
		CHECK_EQ(count_devices(), before);
		CHECK_EQ(b.told, told);
	}
	CHECK_EQ(cdev, -1);
}

/* What the devices that are there wrote is reported, or the collect fails. */
static void write_and_collect(void)
{
	unsigned int rounds = failures;
	long pages;

	for (int i = 0; i < DEVICES; i++)
		if (devices[i])
			CHECK(fake_dma(b.fake, &b.fake->devices[i], 0x1000 * (uint64_t)(i + 1), 1));
	b.err.text[0] = 0;
	pages = bench_collect(&b, 0, LOW_SIZE);
	if (!ok(pages < 0 ? (int)pages : 0))
		return;
	CHECK_EQ(failures, rounds);
	for (int i = 0; i < DEVICES; i++)
		CHECK(!devices[i] || bitmap_test(bench_bitmap, (uint64_t)(i + 1)));
}

static void life(enum vfio_want want, bool handed_in)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct guest_region region = {.gpa = GIB(8), .size = MIB(16), .host = b.host, .fd = b.memfd};
	struct vfio_bar bar = {.gpa = GIB(3), .size = 4096, .host = page};
	bool started;

	for (int i = 0; i < DEVICES - 1; i++)
		open_one(i, want, handed_in);
	bar.device = devices[0];
	if (devices[0])
		vfio_space_map_bar(b.space, &bar);
	b.err.text[0] = 0;
	ok(guest_memory_add(b.memory, &region, &b.err));
	started = ok(dirty_set_start(&b.dirty, &b.err));
	open_one(DEVICES - 1, want, handed_in);
	if (started)
		write_and_collect();
	if (devices[0])
		vfio_space_unmap_bar(b.space, &bar);
	vfio_device_close(devices[0]);
	devices[0] = NULL;
	guest_memory_remove(b.memory, GIB(8), NULL);
	dirty_set_stop(&b.dirty);
	for (int i = DEVICES; i--;)
		vfio_device_close(devices[i]);
}

/* Lives once for every call that can fail; how many there were. */
static unsigned int every_call(enum vfio_want want, bool handed_in, int code)
{
	unsigned int n;

	for (n = 1; n < 2000; n++) {
		bool reached;

		setup(handed_in);
		failures = 0;
		b.fake->fail_at = n;
		b.fake->fail_errno = code;
		life(want, handed_in);
		reached = b.fake->calls >= n;
		CHECK(reached || !failures);
		bench_done(&b);
		if (!reached)
			return n - 1;
	}
	return n;
}

static const int codes[] = {-ENOMEM, -EINVAL, -EBUSY, -EPERM, -ENOENT, -ENOTTY, -EFAULT, -ENOSPC, -EINTR};

static void run(enum vfio_want want, bool handed_in)
{
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		unsigned int n = every_call(want, handed_in, codes[i]);

		printf("# %s: %u calls failed, each once\n", strerrorname_np(-codes[i]), n);
		CHECK(n > 50 && n < 1000);
	}
}

static void iommufd(void)
{
	run(VFIO_WANT_IOMMUFD, false);
}

static void iommufd_handed_in(void)
{
	run(VFIO_WANT_AUTO, true);
}

static void legacy(void)
{
	run(VFIO_WANT_LEGACY, false);
}

static void chosen(void)
{
	run(VFIO_WANT_AUTO, false);
}

TEST_MAIN(TEST(iommufd), TEST(iommufd_handed_in), TEST(legacy), TEST(chosen))
