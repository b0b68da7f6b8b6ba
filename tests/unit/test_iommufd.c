/* SPDX-License-Identifier: Apache-2.0 */
/* iommu/iommufd and iommu/host_iommu_device against the fake kernel: each call says what it should. */
#include "iommu/host_iommu_device.h"
#include "tests/unit/fake_vfio.h"
#include "tests/unit/test.h"

#include <fcntl.h>

/* An open iommufd with one device bound to it. */
struct bench {
	struct fake_kernel *fake;
	struct fake_device *device;
	struct iommufd iommufd;
	int cdev;
	uint32_t devid;
};

static struct bench setup(bool dirty)
{
	struct bench b = {.fake = fake_new()};
	struct vfio_uapi_bind bind = {.argsz = sizeof(bind)};

	b.device = fake_device(b.fake, "0000:01:00.0", fake_group(b.fake), fake_iommu(b.fake, dirty));
	b.iommufd = (struct iommufd){.sys = &b.fake->sys, .fd = fake_open(b.fake, "/dev/iommu")};
	b.cdev = fake_open(b.fake, "/dev/vfio/devices/vfio0");
	bind.iommufd = b.iommufd.fd;
	CHECK_EQ(vfio_sys_ioctl(&b.fake->sys, b.cdev, VFIO_UAPI_BIND, &bind), 0);
	b.devid = bind.devid;
	return b;
}

static void teardown(struct bench *b)
{
	vfio_sys_close(&b->fake->sys, &b->cdev);
	vfio_sys_close(&b->fake->sys, &b->iommufd.fd);
	CHECK_EQ(fake_left(b->fake), 0);
	fake_free(b->fake);
}

static void maps_and_unmaps(void)
{
	struct bench b = setup(false);
	uint32_t ioas;

	CHECK_EQ(iommufd_ioas_alloc(&b.iommufd, &ioas), 0);
	CHECK_EQ(iommufd_ioas_map(&b.iommufd, ioas, 0x1000, 0x2000, (void *)0x7000), 0);
	CHECK_EQ(iommufd_ioas_map(&b.iommufd, ioas, 0x2000, 0x2000, (void *)0x7000), -EEXIST);
	CHECK_EQ(iommufd_ioas_unmap(&b.iommufd, ioas, 0x1000, 0x1000), -ENOENT);
	CHECK_EQ(iommufd_ioas_unmap(&b.iommufd, ioas, 0x1000, 0x2000), 0);
	CHECK_EQ(iommufd_ioas_map_file(&b.iommufd, ioas, 0x1000, 0x2000, 7, 0), 0);
	b.fake->no_map_file = true;
	CHECK_EQ(iommufd_ioas_map_file(&b.iommufd, ioas, 0x8000, 0x1000, 7, 0), -ENOTTY);
	CHECK_EQ(iommufd_destroy(&b.iommufd, ioas), 0);
	CHECK_EQ(iommufd_destroy(&b.iommufd, ioas), -ENOENT);
	teardown(&b);
}

static void tells_the_ranges(void)
{
	struct iommufd_uapi_range ranges[2];
	struct bench b = setup(false);
	struct vfio_uapi_attach attach = {.argsz = sizeof(attach)};
	uint32_t ioas, count = 0;

	b.fake->iommus[0].reserved_start = 0xfee00000;
	b.fake->iommus[0].reserved_last = 0xfeefffff;
	CHECK_EQ(iommufd_ioas_alloc(&b.iommufd, &ioas), 0);
	attach.pt_id = ioas;
	CHECK_EQ(vfio_sys_ioctl(&b.fake->sys, b.cdev, VFIO_UAPI_ATTACH, &attach), 0);
	CHECK_EQ(iommufd_ioas_iova_ranges(&b.iommufd, ioas, NULL, &count), -EMSGSIZE);
	CHECK_EQ(count, 2);
	CHECK_EQ(iommufd_ioas_iova_ranges(&b.iommufd, ioas, ranges, &count), 0);
	CHECK_EQ(ranges[0].last, 0xfedfffff);
	CHECK_EQ(ranges[1].start, 0xfef00000);
	teardown(&b);
}

static void tracks_dirty_pages(void)
{
	struct bench b = setup(true);
	struct vfio_uapi_attach attach = {.argsz = sizeof(attach)};
	unsigned long bitmap = 0;
	uint32_t ioas, hwpt;

	CHECK_EQ(iommufd_ioas_alloc(&b.iommufd, &ioas), 0);
	CHECK_EQ(iommufd_ioas_map(&b.iommufd, ioas, 0, 0x10000, (void *)0x7000), 0);
	CHECK_EQ(iommufd_hwpt_alloc(&b.iommufd, b.devid, ioas, IOMMUFD_UAPI_HWPT_DIRTY_TRACKING, &hwpt), 0);
	attach.pt_id = hwpt;
	CHECK_EQ(vfio_sys_ioctl(&b.fake->sys, b.cdev, VFIO_UAPI_ATTACH, &attach), 0);
	CHECK(fake_dma(b.fake, b.device, 0x1000, 1));
	CHECK_EQ(iommufd_hwpt_set_dirty_tracking(&b.iommufd, hwpt, true), 0);
	CHECK(fake_dma(b.fake, b.device, 0x3000, 0x2000));
	CHECK(!fake_dma(b.fake, b.device, 0x10000, 1));
	CHECK_EQ(iommufd_hwpt_get_dirty_bitmap(&b.iommufd, hwpt, 0, 0x10000, 4096, &bitmap), 0);
	CHECK_EQ(bitmap, 0x18);
	bitmap = 0;
	CHECK_EQ(iommufd_hwpt_get_dirty_bitmap(&b.iommufd, hwpt, 0, 0x10000, 4096, &bitmap), 0);
	CHECK_EQ(bitmap, 0);
	CHECK_EQ(iommufd_hwpt_set_dirty_tracking(&b.iommufd, hwpt, false), 0);
	CHECK_EQ(iommufd_destroy(&b.iommufd, hwpt), -EBUSY);
	teardown(&b);
}

static void knows_the_iommu_by_iommufd(void)
{
	static const struct {
		uint32_t type;
		enum host_iommu_type want;
		const char *name;
	} cases[] = {
		{IOMMUFD_UAPI_HW_TYPE_NONE, HOST_IOMMU_NONE, "none"}, {IOMMUFD_UAPI_HW_TYPE_VTD, HOST_IOMMU_VTD, "vtd"},
		{IOMMUFD_UAPI_HW_TYPE_SMMUV3, HOST_IOMMU_SMMUV3, "smmuv3"},
		{IOMMUFD_UAPI_HW_TYPE_AMD, HOST_IOMMU_AMD, "amd"}, {3, HOST_IOMMU_OTHER, "other"}, {77, HOST_IOMMU_OTHER, "other"},
	};
	struct bench b = setup(true);
	struct host_iommu_source source = {.iommufd = &b.iommufd, .devid = b.devid};
	struct host_iommu_device *hiod;

	b.fake->iommus[0].registers[1] = 0x2f0000;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		hiod = host_iommu_device_create(&host_iommu_iommufd);
		CHECK(hiod && !host_iommu_tracks_dirty(hiod));
		b.fake->iommus[0].type = cases[i].type;
		CHECK_EQ(host_iommu_device_realize(hiod, &source), 0);
		CHECK(host_iommu_tracks_dirty(hiod));
		CHECK_EQ(hiod->type, cases[i].want);
		CHECK_STR(host_iommu_type_name(hiod->type), cases[i].name);
		CHECK_EQ(hiod->registers.vtd.cap, 0x2f0000);
		host_iommu_device_destroy(hiod);
	}
	host_iommu_device_destroy(NULL);
	teardown(&b);
}

static void a_mediated_device_has_none(void)
{
	struct bench b = setup(true);
	struct host_iommu_source source = {.iommufd = &b.iommufd, .devid = b.devid};
	struct host_iommu_device *hiod = host_iommu_device_create(&host_iommu_iommufd);

	b.device->iommu = -1;
	CHECK_EQ(host_iommu_device_realize(hiod, &source), -ENOENT);
	CHECK_EQ(hiod->capabilities, 0);
	host_iommu_device_destroy(hiod);
	teardown(&b);
}

static void knows_the_iommu_by_sysfs(void)
{
	struct bench b = setup(false);
	struct host_iommu_source source = {.sys = &b.fake->sys, .sysfs = "/sys/bus/pci/devices/0000:01:00.0"};
	struct host_iommu_device *hiod = host_iommu_device_create(&host_iommu_legacy);

	CHECK_EQ(host_iommu_device_realize(hiod, &source), 0);
	CHECK_EQ(hiod->type, HOST_IOMMU_NONE);
	b.fake->iommus[0].type = IOMMUFD_UAPI_HW_TYPE_VTD;
	b.fake->iommus[0].registers[1] = 0xd2008c40660462ull;
	b.fake->iommus[0].registers[2] = 0xf050da;
	CHECK_EQ(host_iommu_device_realize(hiod, &source), 0);
	CHECK_EQ(hiod->type, HOST_IOMMU_VTD);
	CHECK_EQ(hiod->registers.vtd.cap, 0xd2008c40660462ull);
	CHECK_EQ(hiod->registers.vtd.ecap, 0xf050da);
	source.sysfs = NULL;
	CHECK_EQ(host_iommu_device_realize(hiod, &source), 0);
	CHECK_EQ(hiod->type, HOST_IOMMU_NONE);
	host_iommu_device_destroy(hiod);
	teardown(&b);
}

/* The kernel's own table, on a descriptor that is no device: errors arrive as -errno. */
static void the_real_table_answers_errno(void)
{
	const struct vfio_sys *sys = vfio_sys_host();
	char buf[64];
	int fd;

	CHECK_EQ(sys->ops->open(sys, "/nowhere", O_RDWR), -ENOENT);
	fd = sys->ops->open(sys, "/dev/null", O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(vfio_sys_ioctl_value(sys, fd, VFIO_GET_API_VERSION, 0), -ENOTTY);
	CHECK_EQ(sys->ops->pread(sys, fd, buf, sizeof(buf), 0), 0);
	vfio_sys_close(sys, &fd);
	CHECK_EQ(fd, -1);
	CHECK_EQ(sys->ops->pread(sys, fd, buf, sizeof(buf), 0), -EBADF);
	CHECK_EQ(sys->ops->readlink(sys, "/proc/self/exe", buf, 3), -ENAMETOOLONG);
	CHECK_EQ(sys->ops->readlink(sys, "/nowhere", buf, sizeof(buf)), -ENOENT);
	CHECK_EQ(sys->ops->read_file(sys, "/proc/sys/kernel/ostype", buf, sizeof(buf)), 0);
	CHECK_STR(buf, "Linux");
	CHECK(sys->ops->locked_limit(sys) > 0);
}

TEST_MAIN(TEST(maps_and_unmaps), TEST(tells_the_ranges), TEST(tracks_dirty_pages),
	  TEST(knows_the_iommu_by_iommufd), TEST(a_mediated_device_has_none), TEST(knows_the_iommu_by_sysfs),
	  TEST(the_real_table_answers_errno))
