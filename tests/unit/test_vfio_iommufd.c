/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/container_iommufd: the order of an attach, auto-domains, mediated devices, descriptors handed in. */
#include "tests/unit/vfio_bench.h"

static struct vfio_bench b;
static struct vfio_device *one, *two, *three;

/* Two devices, each in a group of its own. */
static void setup(bool first_dirty, bool second_dirty, bool same_iommu)
{
	int iommu;

	bench_init(&b);
	iommu = fake_iommu(b.fake, first_dirty);
	fake_device(b.fake, "0000:01:00.0", fake_group(b.fake), iommu);
	fake_device(b.fake, "0000:02:00.0", fake_group(b.fake), same_iommu ? iommu : fake_iommu(b.fake, second_dirty));
	bench_space(&b, NULL);
}

static void attaches_and_leaves_nothing(void)
{
	setup(true, false, false);
	b.fake->iommus[0].type = IOMMUFD_UAPI_HW_TYPE_VTD;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_AUTO, &one), 0);
	CHECK_STR(one->backend->name, "iommufd");
	CHECK(host_iommu_tracks_dirty(one->iommu));
	CHECK_EQ(one->iommu->type, HOST_IOMMU_VTD);
	CHECK_EQ(one->num_regions, 9);
	CHECK_EQ(one->num_irqs, 5);
	CHECK(one->flags & VFIO_DEVICE_FLAGS_PCI);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_HWPT);
	CHECK(vfio_device_ids(one).hwpt && vfio_device_ids(one).ioas && vfio_device_ids(one).devid);
	CHECK_EQ(b.told, 1);
	CHECK(fake_mapped(b.fake, &b.fake->devices[0], 0, LOW_SIZE));
	CHECK(fake_mapped(b.fake, &b.fake->devices[0], HIGH_GPA, HIGH_SIZE));
	CHECK(!fake_mapped(b.fake, &b.fake->devices[0], LOW_SIZE, 4096));
	vfio_device_close(one);
	CHECK_EQ(fake_objects(b.fake, FAKE_IOAS), 0);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 0);
	bench_done(&b);
}

static void one_iommu_shares_a_page_table(void)
{
	setup(true, true, true);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(vfio_device_ids(one).hwpt, vfio_device_ids(two).hwpt);
	CHECK_EQ(one->container == two->container, 1);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 1);
	vfio_device_close(one);
	/* It goes with its last device, not with its first. */
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 1);
	CHECK(fake_mapped(b.fake, &b.fake->devices[1], 0, LOW_SIZE));
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(vfio_device_ids(one).hwpt, vfio_device_ids(two).hwpt);
	vfio_device_close(two);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 1);
	vfio_device_close(one);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 0);
	bench_done(&b);
}

static void two_iommus_do_not(void)
{
	setup(true, true, false);
	b.fake->counted = IOMMUFD_UAPI_MAP;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(b.fake->count, 1);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK(vfio_device_ids(one).hwpt != vfio_device_ids(two).hwpt);
	CHECK_EQ(vfio_device_ids(one).ioas, vfio_device_ids(two).ioas);
	CHECK_EQ(fake_objects(b.fake, FAKE_IOAS), 1);
	/* The second page table needs no second map. */
	CHECK_EQ(b.fake->count, 1);
	CHECK_EQ(bench_logged(&b, "warning"), 0);
	vfio_device_close(one);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 1);
	CHECK(fake_mapped(b.fake, &b.fake->devices[1], 0, LOW_SIZE));
	vfio_device_close(two);
	bench_done(&b);
}

static void mixed_iommus_warn_once_with_a_name(void)
{
	setup(true, false, false);
	fake_device(b.fake, "0000:03:00.0", fake_group(b.fake), fake_iommu(b.fake, false));
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_HWPT);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(vfio_device_coverage(two), VFIO_COVERAGE_NONE);
	CHECK_EQ(bench_logged(&b, "vfio 0000:02:00.0: its IOMMU does not track dirty pages"), 1);
	CHECK_EQ(bench_open(&b, "0000:03:00.0", VFIO_WANT_IOMMUFD, &three), 0);
	CHECK_EQ(bench_logged(&b, "warning"), 1);
	/* What one device can is no matter of the others. */
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_HWPT);
	vfio_device_close(one);
	CHECK_EQ(vfio_device_coverage(two), VFIO_COVERAGE_NONE);
	vfio_device_close(two);
	vfio_device_close(three);
	bench_done(&b);
}

static void a_refused_dirty_flag_is_retried_without(void)
{
	static const int refusals[] = {-EOPNOTSUPP, -EINVAL};

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		setup(true, false, false);
		b.fake->iommus[0].refuse_dirty = true;
		b.fake->iommus[0].refuse_errno = refusals[i];
		b.fake->counted = IOMMUFD_UAPI_HWPT_ALLOC;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
		CHECK_EQ(b.fake->count, 2);
		CHECK(host_iommu_tracks_dirty(one->iommu));
		CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
		CHECK_EQ(bench_logged(&b, "0000:01:00.0: the kernel refuses a page table with dirty tracking"), 1);
		vfio_device_close(one);
		bench_done(&b);
	}
	/* Any other refusal is final. */
	setup(true, false, false);
	b.fake->iommus[0].refuse_dirty = true;
	b.fake->iommus[0].refuse_errno = -ENOMEM;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -ENOMEM);
	bench_done(&b);
}

static void only_einval_means_another_iommu(void)
{
	setup(true, true, false);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	/* The second device meets the first one's page table: an error that is not EINVAL ends the attempt. */
	b.fake->fail_request = VFIO_UAPI_ATTACH;
	b.fake->fail_times = 1;
	b.fake->fail_request_errno = -EBUSY;
	b.fake->counted = IOMMUFD_UAPI_HWPT_ALLOC;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), -EBUSY);
	CHECK_EQ(b.fake->count, 0);
	CHECK_HAS(b.err.text, "vfio 0000:02:00.0: attach it to an address space: Device or resource busy");
	CHECK_EQ(fake_objects(b.fake, FAKE_IDEV), 1);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	vfio_device_close(two);
	vfio_device_close(one);
	bench_done(&b);
}

static void a_group_of_two_shares_its_page_table(void)
{
	int iommu, group;

	bench_init(&b);
	iommu = fake_iommu(b.fake, true);
	group = fake_group(b.fake);
	fake_device(b.fake, "0000:01:00.0", group, iommu);
	fake_device(b.fake, "0000:01:00.1", group, iommu);
	bench_space(&b, NULL);
	CHECK_EQ(bench_open(&b, "01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "01:00.1", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(vfio_device_ids(one).hwpt, vfio_device_ids(two).hwpt);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

static void a_mediated_device_goes_to_the_ioas(void)
{
	setup(true, true, true);
	fake_mdev(b.fake, UUID, fake_group(b.fake));
	b.fake->counted = IOMMUFD_UAPI_GET_HW_INFO;
	CHECK_EQ(bench_open(&b, UUID, VFIO_WANT_AUTO, &one), 0);
	CHECK_EQ(b.fake->count, 0);
	CHECK(one->mdev && !one->iommu && !vfio_device_ids(one).hwpt);
	CHECK_EQ(vfio_device_ids(one).hwpt, 0);
	CHECK_EQ(vfio_device_coverage(one), VFIO_COVERAGE_NONE);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 0);
	CHECK(fake_mapped(b.fake, &b.fake->devices[2], HIGH_GPA, HIGH_SIZE));
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_AUTO, &two), 0);
	CHECK_EQ(vfio_device_ids(two).ioas, vfio_device_ids(one).ioas);
	vfio_device_close(one);
	CHECK(fake_mapped(b.fake, &b.fake->devices[0], HIGH_GPA, HIGH_SIZE));
	vfio_device_close(two);
	bench_done(&b);
}

/* The process opens neither /dev/vfio nor /dev/iommu then. */
static void takes_descriptors_handed_in(void)
{
	struct vfio_device_options options = {0};
	int iommufd, cdev;

	bench_init(&b);
	fake_device(b.fake, "0000:01:00.0", fake_group(b.fake), fake_iommu(b.fake, true));
	fake_mdev(b.fake, UUID, fake_group(b.fake));
	iommufd = fake_open(b.fake, "/dev/iommu");
	bench_space(&b, &iommufd);
	CHECK_EQ(iommufd, -1);
	options.fd = &cdev;
	cdev = fake_open(b.fake, "/dev/vfio/devices/vfio0");
	b.fake->no_rights = true;
	CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), 0);
	CHECK_EQ(cdev, -1);
	CHECK(one->iommu && vfio_device_ids(one).hwpt);
	CHECK_HAS(one->host.name, "fd 10");
	/* A mediated device that comes as a descriptor shows itself by having no IOMMU. */
	b.fake->no_rights = false;
	cdev = fake_open(b.fake, "/dev/vfio/devices/vfio1");
	b.fake->no_rights = true;
	CHECK_EQ(vfio_device_open(b.space, &options, &two, &b.err), 0);
	CHECK(two->mdev && !two->iommu && !vfio_device_ids(two).hwpt);
	vfio_device_close(one);
	vfio_device_close(two);
	/* A descriptor that does not do is closed. */
	b.fake->no_rights = false;
	cdev = fake_open(b.fake, "/dev/vfio/devices/vfio0");
	options.backend = VFIO_WANT_LEGACY;
	CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), -EINVAL);
	CHECK_HAS(b.err.text, "fd=");
	CHECK_EQ(cdev, -1);
	bench_done(&b);
}

static void auto_falls_back_to_legacy(void)
{
	setup(true, true, true);
	b.fake->no_iommufd = true;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_AUTO, &one), 0);
	CHECK_STR(one->backend->name, "legacy");
	vfio_device_close(one);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -ENOENT);
	CHECK_HAS(b.err.text, "/dev/iommu");
	CHECK_HAS(b.err.text, "modprobe iommufd");
	b.fake->no_iommufd = false;
	b.fake->devices[0].cdev = false;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -ENODEV);
	CHECK_HAS(b.err.text, "backend=legacy");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_AUTO, &one), 0);
	CHECK_STR(one->backend->name, "legacy");
	/* The other one has a file of its own: two containers beside each other, both with all RAM. */
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_AUTO, &two), 0);
	CHECK_STR(two->backend->name, "iommufd");
	CHECK(fake_mapped(b.fake, &b.fake->devices[0], 0, LOW_SIZE));
	CHECK(fake_mapped(b.fake, &b.fake->devices[1], 0, LOW_SIZE));
	vfio_device_close(one);
	CHECK(fake_mapped(b.fake, &b.fake->devices[1], 0, LOW_SIZE));
	vfio_device_close(two);
	bench_done(&b);
}

static void vf_tokens_are_passed(void)
{
	static const uint8_t token[16] = {0xbd, 0x8d, 0x9d, 0x2b, 0x5a, 0x5f, 0x4f, 0x5a,
					  0xa2, 0x11, 0xf5, 0x91, 0x51, 0x4b, 0xa1, 0xf3};
	struct vfio_device_options options = {.device = "0000:01:00.0", .backend = VFIO_WANT_IOMMUFD, .vf_token = token};

	setup(true, true, true);
	b.fake->devices[0].token_wanted = true;
	memcpy(b.fake->devices[0].token, token, sizeof(token));
	CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), 0);
	vfio_device_close(one);
	b.fake->devices[0].token[3] ^= 1;
	CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), -EACCES);
	CHECK_HAS(b.err.text, "VF token is not that of its physical function");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -EACCES);
	CHECK_HAS(b.err.text, "vf-token=UUID");
	b.fake->devices[0].token_wanted = false;
	CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), -EINVAL);
	CHECK_HAS(b.err.text, "takes no VF token");
	/* Without a token an old kernel, which knows none, is asked in its own size. */
	b.fake->old_bind = true;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	vfio_device_close(one);
	bench_done(&b);
}

static void says_who_has_it(void)
{
	int group_fd, cdev, iommufd;
	struct vfio_uapi_bind bind = {.argsz = sizeof(bind)};

	setup(true, true, true);
	group_fd = fake_open(b.fake, "/dev/vfio/0");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -EBUSY);
	CHECK_HAS(b.err.text, "/dev/vfio/0");
	CHECK_HAS(b.err.text, "fuser");
	vfio_sys_close(&b.fake->sys, &group_fd);
	cdev = fake_open(b.fake, "/dev/vfio/devices/vfio0");
	bind.iommufd = iommufd = fake_open(b.fake, "/dev/iommu");
	CHECK_EQ(vfio_sys_ioctl(&b.fake->sys, cdev, VFIO_UAPI_BIND, &bind), 0);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -EINVAL);
	CHECK_HAS(b.err.text, "fuser -v /dev/vfio/devices/vfio0");
	vfio_sys_close(&b.fake->sys, &cdev);
	vfio_sys_close(&b.fake->sys, &iommufd);
	b.fake->groups[0].other_owner = true;
	fake_device(b.fake, "0000:01:00.1", 0, 0);
	strcpy(b.fake->devices[2].driver, "igb");
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -EPERM);
	CHECK_HAS(b.err.text, "0000:01:00.1 (igb)");
	CHECK_HAS(b.err.text, "mvmm vfio bind --group 0000:01:00.0");
	bench_done(&b);
}

static void the_hypervisor_may_refuse(void)
{
	setup(true, true, true);
	b.refuse_tell = -ENOSPC;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), -ENOSPC);
	CHECK_HAS(b.err.text, "the hypervisor refuses");
	bench_done(&b);
}

/* A detach that fails is told, and the rest goes on: closing the device frees what the detach did not. */
static void a_failed_detach_leaves_nothing(void)
{
	setup(true, true, true);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	b.fake->fail_request = VFIO_UAPI_DETACH;
	b.fake->fail_times = 1;
	b.fake->fail_request_errno = -EBUSY;
	vfio_device_close(one);
	CHECK_EQ(bench_logged(&b, "vfio 0000:01:00.0: detach: Device or resource busy"), 1);
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 0);
	CHECK_EQ(fake_objects(b.fake, FAKE_IOAS), 0);
	bench_done(&b);
}

TEST_MAIN(TEST(attaches_and_leaves_nothing), TEST(one_iommu_shares_a_page_table), TEST(two_iommus_do_not),
	  TEST(mixed_iommus_warn_once_with_a_name), TEST(a_refused_dirty_flag_is_retried_without),
	  TEST(only_einval_means_another_iommu), TEST(a_group_of_two_shares_its_page_table),
	  TEST(a_mediated_device_goes_to_the_ioas), TEST(takes_descriptors_handed_in), TEST(auto_falls_back_to_legacy),
	  TEST(vf_tokens_are_passed), TEST(says_who_has_it), TEST(the_hypervisor_may_refuse),
	  TEST(a_failed_detach_leaves_nothing))
