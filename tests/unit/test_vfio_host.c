/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/host: which device a text means, and its files. */
#include "tests/unit/vfio_bench.h"

static struct vfio_bench b;

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

static void setup(void)
{
	bench_init(&b);
	fake_group(b.fake);
	fake_device(b.fake, "0000:01:10.2", fake_group(b.fake), fake_iommu(b.fake, false));
	fake_mdev(b.fake, UUID, fake_group(b.fake));
}

static void finds_devices_by_every_name(void)
{
	static const struct {
		const char *spec, *name, *path;
		bool mdev;
	} cases[] = {
		{"0000:01:10.2", "0000:01:10.2", "/sys/bus/pci/devices/0000:01:10.2", false},
		{"01:10.2", "0000:01:10.2", "/sys/bus/pci/devices/0000:01:10.2", false},
		{"1:10.2", "0000:01:10.2", "/sys/bus/pci/devices/0000:01:10.2", false},
		{"/sys/bus/pci/devices/0000:01:10.2/", "0000:01:10.2", "/sys/bus/pci/devices/0000:01:10.2", false},
		{UUID, UUID, "/sys/bus/mdev/devices/" UUID, true},
		{"/sys/bus/mdev/devices/" UUID, UUID, "/sys/bus/mdev/devices/" UUID, true},
	};
	struct vfio_host host;

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_EQ(vfio_host_find(&b.fake->sys, cases[i].spec, &host, &b.err), 0);
		CHECK_STR(host.name, cases[i].name);
		CHECK_STR(host.path, cases[i].path);
		CHECK_EQ(host.mdev, cases[i].mdev);
		CHECK_EQ(host.group, cases[i].mdev ? 2 : 1);
		CHECK(!host.noiommu);
		CHECK_STR(host.driver, cases[i].mdev ? "vfio_mdev" : "vfio-pci");
		CHECK_STR(host.cdev, cases[i].mdev ? "/dev/vfio/devices/vfio1" : "/dev/vfio/devices/vfio0");
		CHECK_EQ(vfio_host_check_bound(&host, &b.err), 0);
	}
	bench_done(&b);
}

static void refuses_nonsense(void)
{
	static const char *const bad[] = {"", "nvme0", "0000:01:10", "0000:01:10.2x", "01:10.22", "-1:10.2",
					  "83b8f4f2-509f-382f-3c1e-e6bfe0fa10", "83b8f4f2+509f-382f-3c1e-e6bfe0fa1001"};
	struct vfio_host host = {.group = 77};

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int rc = vfio_host_find(&b.fake->sys, bad[i], &host, &b.err);

		CHECK(rc == -EINVAL || rc == -ENODEV);
		CHECK_EQ(host.group, 77);
	}
	CHECK_EQ(vfio_host_find(&b.fake->sys, "nvme0", &host, &b.err), -EINVAL);
	CHECK_HAS(b.err.text, "neither a PCI address (0000:01:00.0), a UUID nor a path");
	CHECK_EQ(vfio_host_find(&b.fake->sys, "0000:05:00.0", &host, &b.err), -ENODEV);
	CHECK_HAS(b.err.text, "mvmm vfio list");
	CHECK_EQ(vfio_host_find(&b.fake->sys, "/sys/bus/pci/devices/0000:05:00.0", &host, &b.err), -ENODEV);
	bench_done(&b);
}

static void uuids_come_and_go(void)
{
	uint8_t uuid[16];
	char text[37];

	CHECK_EQ(vfio_uuid_parse(UUID, uuid), 0);
	CHECK_EQ(uuid[0], 0x83);
	CHECK_EQ(uuid[15], 0x01);
	vfio_uuid_text(uuid, text);
	CHECK_STR(text, UUID);
	CHECK_EQ(vfio_uuid_parse("83B8F4F2-509F-382F-3C1E-E6BFE0FA1001", uuid), 0);
	vfio_uuid_text(uuid, text);
	CHECK_STR(text, UUID);
	CHECK_EQ(vfio_uuid_parse(UUID "0", uuid), -EINVAL);
	CHECK_EQ(vfio_uuid_parse("", uuid), -EINVAL);
	CHECK_EQ(vfio_uuid_parse("83b8f4f2-509f-382f-3c1e-e6bfe0fa100g", uuid), -EINVAL);
}

static void says_what_is_missing(void)
{
	struct vfio_host host = {.name = "0000:01:10.2", .group = -1, .driver = "vfio-pci"};

	setup();
	CHECK_EQ(vfio_host_check_bound(&host, &b.err), -ENODEV);
	CHECK_HAS(b.err.text, "no IOMMU group");
	CHECK_HAS(b.err.text, "intel_iommu=on");
	CHECK_EQ(vfio_host_open_failed(&host, "/dev/vfio/3", -ENOENT, &b.err), -ENOENT);
	CHECK_HAS(b.err.text, "mvmm vfio bind 0000:01:10.2");
	CHECK_EQ(vfio_host_open_failed(&host, "/dev/vfio/3", -EMFILE, &b.err), -EMFILE);
	CHECK_HAS(b.err.text, "open /dev/vfio/3: Too many open files");
	/* Nobody in sight who holds it. */
	host.group = 1;
	CHECK_EQ(vfio_host_not_viable(&b.fake->sys, &host, &b.err), -EPERM);
	CHECK_HAS(b.err.text, "IOMMU group 1 (/dev/vfio/1) is in use");
	bench_done(&b);
}

TEST_MAIN(TEST(finds_devices_by_every_name), TEST(refuses_nonsense), TEST(uuids_come_and_go), TEST(says_what_is_missing))
