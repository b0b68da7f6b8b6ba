/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/group, container_legacy and container_noiommu: groups, containers, the information chain, no-IOMMU mode, and what is said when it fails. */
#include "tests/unit/vfio_bench.h"

static struct vfio_bench b;
static struct vfio_device *one, *two;

/* Three devices: the first two in one group, the third in another. */
static void setup(void)
{
	int iommu, group;

	bench_init(&b);
	iommu = fake_iommu(b.fake, true);
	group = fake_group(b.fake);
	fake_device(b.fake, "0000:01:00.0", group, iommu);
	fake_device(b.fake, "0000:01:00.1", group, iommu);
	fake_device(b.fake, "0000:02:00.0", fake_group(b.fake), iommu);
	bench_space(&b, NULL);
}

static void attaches_and_leaves_nothing(void)
{
	setup();
	b.fake->type1_dirty = true;
	b.fake->iommus[0].type = IOMMUFD_UAPI_HW_TYPE_VTD;
	b.fake->iommus[0].registers[1] = 0x123;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_STR(one->backend->name, "legacy");
	CHECK(one->iommu);
	CHECK_EQ(one->iommu->type, HOST_IOMMU_VTD);
	CHECK_EQ(one->iommu->registers.vtd.cap, 0x123);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
	CHECK_EQ(one->num_regions, 9);
	CHECK_EQ(vfio_device_ids(one).hwpt, 0);
	CHECK_EQ(one->container->map_limit, 65535);
	CHECK_EQ(b.told, 1);
	CHECK(fake_mapped(b.fake, &b.fake->devices[2], 0, LOW_SIZE));
	CHECK(fake_mapped(b.fake, &b.fake->devices[2], HIGH_GPA, HIGH_SIZE));
	vfio_device_close(one);
	bench_done(&b);
}

static void a_group_is_opened_once(void)
{
	setup();
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:01:00.1", VFIO_WANT_LEGACY, &two), 0);
	CHECK(one->attachment == two->attachment);
	CHECK_EQ(b.told, 1);
	vfio_device_close(one);
	CHECK_EQ(b.told, 1);
	CHECK(fake_mapped(b.fake, &b.fake->devices[1], 0, LOW_SIZE));
	vfio_device_close(two);
	bench_done(&b);
}

static void groups_share_a_container(void)
{
	setup();
	b.fake->counted = VFIO_IOMMU_MAP_DMA;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &two), 0);
	CHECK(one->container == two->container && one->attachment != two->attachment);
	CHECK_EQ(b.fake->count, 2);
	CHECK_EQ(b.told, 2);
	vfio_device_close(one);
	CHECK(fake_mapped(b.fake, &b.fake->devices[2], HIGH_GPA, HIGH_SIZE));
	vfio_device_close(two);
	bench_done(&b);
}

/* The kernel takes no group whose reserved addresses are mapped: the guest's RAM is there, so no container can be. */
static void a_group_that_fits_no_container_is_told_why(void)
{
	setup();
	fake_device(b.fake, "0000:03:00.0", fake_group(b.fake), fake_iommu(b.fake, true));
	b.fake->iommus[1].reserved_start = MIB(1);
	b.fake->iommus[1].reserved_last = MIB(2) - 1;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:03:00.0", VFIO_WANT_LEGACY, &two), -EINVAL);
	CHECK_HAS(b.err.text, "covers 0x100000-0x1fffff");
	CHECK(fake_mapped(b.fake, &b.fake->devices[0], 0, LOW_SIZE));
	vfio_device_close(one);
	bench_done(&b);
}

/* The message has the option with its dashes, and the device once. */
static void a_device_that_is_not_there_is_named_once(void)
{
	setup();
	CHECK_EQ(bench_open(&b, "0000:09:00.0", VFIO_WANT_LEGACY, &one), -ENODEV);
	CHECK_STR(b.err.text, "--vfio 0000:09:00.0: there is no such device on this host; 'mvmm vfio list' shows those "
			      "there are");
	bench_done(&b);
}

static void only_a_misfit_tries_the_next_container(void)
{
	setup();
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	b.fake->fail_request = VFIO_GROUP_SET_CONTAINER;
	b.fake->fail_times = 1;
	b.fake->fail_request_errno = -ENOMEM;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &two), -ENOMEM);
	CHECK_HAS(b.err.text, "vfio 0000:02:00.0: put group 1 into a container");
	b.fake->fail_times = 1;
	b.fake->fail_request_errno = -EINVAL;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &two), 0);
	CHECK(one->container != two->container);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

static void old_kernels_have_no_chain(void)
{
	setup();
	b.fake->type1_avail = 0;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
	CHECK_EQ(one->container->map_limit, 0);
	vfio_device_close(one);
	bench_done(&b);
}

static void noiommu_only_by_name(void)
{
	int group;

	bench_init(&b);
	group = fake_group(b.fake);
	b.fake->groups[group].noiommu = true;
	fake_device(b.fake, "0000:01:00.0", group, -1)->cdev = false;
	fake_device(b.fake, "0000:02:00.0", fake_group(b.fake), fake_iommu(b.fake, false));
	bench_space(&b, NULL);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_AUTO, &one), -EPERM);
	CHECK_HAS(b.err.text, "backend=noiommu");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), -EPERM);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_NOIOMMU, &one), -EINVAL);
	CHECK_HAS(b.err.text, "the device has an IOMMU");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_NOIOMMU, &one), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
	CHECK_STR(one->backend->name, "noiommu");
	CHECK(!one->iommu);
	CHECK_EQ(fake_pinned(b.fake), 0);
	CHECK_EQ(b.fake->prefaults_at_open, 0);
	/* It mixes with no real group. */
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &two), 0);
	CHECK(one->container != two->container);
	CHECK(vfio_space_is_mapped(b.space));
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

/* Groups without an IOMMU share a container; memory comes and goes beside them, but none is given back. */
static void noiommu_maps_nothing(void)
{
	struct guest_region region = {.gpa = GIB(8), .size = MIB(4), .fd = -1};
	static const char *const names[] = {"0000:01:00.0", "0000:02:00.0"};

	bench_init(&b);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int group = fake_group(b.fake);

		b.fake->groups[group].noiommu = true;
		fake_device(b.fake, names[i], group, -1)->cdev = false;
	}
	bench_space(&b, NULL);
	region.host = b.host;
	CHECK_EQ(bench_open(&b, names[0], VFIO_WANT_NOIOMMU, &one), 0);
	CHECK_EQ(bench_open(&b, names[1], VFIO_WANT_NOIOMMU, &two), 0);
	CHECK(one->container == two->container && one->attachment != two->attachment);
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	CHECK_EQ(guest_memory_remove(b.memory, GIB(8), &b.err), 0);
	CHECK_EQ(fake_pinned(b.fake), 0);
	CHECK(vfio_space_is_mapped(b.space));
	CHECK_EQ(bench_logged(&b, "warning"), 0);
	vfio_device_close(one);
	vfio_device_close(two);
	CHECK(!vfio_space_is_mapped(b.space));
	bench_done(&b);
}

/* Every call of its attach fails in turn. */
static void noiommu_leaves_nothing(void)
{
	bool reached = true;

	for (unsigned int n = 1; reached; n++) {
		int group, rc;

		bench_init(&b);
		group = fake_group(b.fake);
		b.fake->groups[group].noiommu = true;
		fake_device(b.fake, "0000:01:00.0", group, -1)->cdev = false;
		bench_space(&b, NULL);
		b.fake->fail_at = n;
		rc = bench_open(&b, "0000:01:00.0", VFIO_WANT_NOIOMMU, &one);
		CHECK(rc == 0 || b.err.text[0]);
		if (rc == 0)
			vfio_device_close(one);
		reached = b.fake->calls >= n;
		CHECK(n > 8 || reached);
		bench_done(&b);
	}
}

static void says_who_has_it(void)
{
	int fd;

	setup();
	fd = fake_open(b.fake, "/dev/vfio/0");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), -EBUSY);
	CHECK_HAS(b.err.text, "vfio 0000:01:00.0: /dev/vfio/0 is in use by another process; 'fuser -v /dev/vfio/0");
	vfio_sys_close(&b.fake->sys, &fd);
	strcpy(b.fake->devices[1].driver, "igb");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), -EPERM);
	CHECK_HAS(b.err.text, "IOMMU group 0 (/dev/vfio/0) has other members that the host uses: 0000:01:00.1 (igb)");
	CHECK_HAS(b.err.text, "mvmm vfio bind --group 0000:01:00.0");
	CHECK_EQ(bench_open(&b, "0000:01:00.1", VFIO_WANT_LEGACY, &one), -ENODEV);
	CHECK_HAS(b.err.text, "in use by the host's driver igb; give it to VFIO with 'mvmm vfio bind 0000:01:00.1'");
	b.fake->devices[1].driver[0] = 0;
	CHECK_EQ(bench_open(&b, "0000:01:00.1", VFIO_WANT_LEGACY, &one), -ENODEV);
	CHECK_HAS(b.err.text, "has no driver");
	b.fake->no_rights = true;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &one), -EACCES);
	CHECK_HAS(b.err.text, "chown \"$USER\" /dev/vfio/1");
	b.fake->no_rights = false;
	b.fake->no_container = true;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &one), -ENOENT);
	CHECK_HAS(b.err.text, "modprobe vfio_iommu_type1");
	bench_done(&b);
}

static void vf_tokens_are_in_the_name(void)
{
	static const uint8_t token[16] = {1, 2, 3};
	struct vfio_device_options options = {.device = "0000:02:00.0", .backend = VFIO_WANT_LEGACY, .vf_token = token};

	setup();
	b.fake->devices[2].token_wanted = true;
	memcpy(b.fake->devices[2].token, token, sizeof(token));
	CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), 0);
	vfio_device_close(one);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &one), -EACCES);
	CHECK_HAS(b.err.text, "vf-token=UUID");
	bench_done(&b);
}

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

static void a_mediated_device_has_no_host_iommu(void)
{
	bench_init(&b);
	fake_mdev(b.fake, UUID, fake_group(b.fake));
	b.fake->type1_dirty = true;
	bench_space(&b, NULL);
	CHECK_EQ(bench_open(&b, UUID, VFIO_WANT_LEGACY, &one), 0);
	CHECK(one->mdev && !one->iommu);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_TYPE1);
	vfio_device_close(one);
	/* A log in another page size than ours is none. */
	b.fake->page_sizes = 0x10000;
	CHECK_EQ(bench_open(&b, UUID, VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
	vfio_device_close(one);
	bench_done(&b);
}

TEST_MAIN(TEST(attaches_and_leaves_nothing), TEST(a_group_is_opened_once), TEST(groups_share_a_container),
	  TEST(a_group_that_fits_no_container_is_told_why), TEST(a_device_that_is_not_there_is_named_once),
	  TEST(only_a_misfit_tries_the_next_container),
	  TEST(old_kernels_have_no_chain), TEST(noiommu_only_by_name), TEST(noiommu_maps_nothing),
	  TEST(noiommu_leaves_nothing), TEST(says_who_has_it),
	  TEST(vf_tokens_are_in_the_name), TEST(a_mediated_device_has_no_host_iommu))
