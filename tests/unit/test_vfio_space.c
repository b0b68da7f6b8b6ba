/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/space: what is mapped, in which pieces, what happens when it cannot be, and how that is told. Both backends. */
#include "tests/unit/vfio_bench.h"

static struct vfio_bench b;
static struct vfio_device *one, *two;
static const enum vfio_want both[] = {VFIO_WANT_IOMMUFD, VFIO_WANT_LEGACY};

static void setup(void)
{
	bench_init(&b);
	fake_device(b.fake, "0000:01:00.0", fake_group(b.fake), fake_iommu(b.fake, true));
	fake_device(b.fake, "0000:02:00.0", fake_group(b.fake), fake_iommu(b.fake, true));
	bench_space(&b, NULL);
}

static const struct fake_device *dev(int i)
{
	return &b.fake->devices[i];
}

static struct guest_region extra(uint64_t gpa, int fd)
{
	/* The bytes do not matter here, only that they are mapped. */
	return (struct guest_region){.gpa = gpa, .size = MIB(4), .host = b.host, .fd = fd};
}

/* Made of more than one piece. */
static struct guest_region large(uint64_t gpa, uint64_t size)
{
	return (struct guest_region){.gpa = gpa, .size = size, .host = b.host, .fd = -1};
}

static void memory_comes_and_goes(void)
{
	struct guest_region region = extra(GIB(8), -1);

	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
		CHECK(fake_mapped(b.fake, dev(0), GIB(8), MIB(4)));
		CHECK_EQ(guest_memory_remove(b.memory, GIB(8), &b.err), 0);
		CHECK(!fake_mapped(b.fake, dev(0), GIB(8), 4096));
		CHECK_EQ(guest_memory_remove(b.memory, 0, &b.err), 0);
		CHECK(!fake_mapped(b.fake, dev(0), 0, 4096));
		CHECK(fake_mapped(b.fake, dev(0), HIGH_GPA, HIGH_SIZE));
		vfio_device_close(one);
		bench_done(&b);
	}
}

/* Both take their time: opening a device resets it. */
static void memory_is_populated_while_the_device_is_opened(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(b.fake->prefaults_at_open, 2);
		CHECK_EQ(b.fake->prefaults, 0);
		CHECK_EQ(bench_open(&b, "0000:02:00.0", both[i], &two), 0);
		CHECK_EQ(b.fake->prefaults_at_open, 0);
		vfio_device_close(two);
		vfio_device_close(one);
		bench_done(&b);
	}
}

/* A page that is only read is the file's: that it is there does not tell whether it has been copied. */
static void all_of_a_memory_file_is_populated(void)
{
	struct guest_file file = {.fd = -1};
	struct guest_region region = extra(GIB(8), -1);

	region.base = &file;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(b.fake->prefaulted, 3);
		CHECK_EQ(b.fake->unsampled, 1);
		vfio_device_close(one);
		CHECK_EQ(guest_memory_remove(b.memory, GIB(8), &b.err), 0);
		bench_done(&b);
	}
}

/* The balloon may give pages back while no device is there: the next one needs them all again, or finds no room. */
static void memory_is_populated_again_for_the_next_first_device(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(b.fake->prefaulted, 2);
		CHECK_EQ(bench_open(&b, "0000:02:00.0", both[i], &two), 0);
		vfio_device_close(one);
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(b.fake->prefaulted, 2); /* it was pinned all the time */
		vfio_device_close(one);
		vfio_device_close(two);
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(b.fake->prefaulted, 4);
		vfio_device_close(one);
		/* One that fails after that leaves nothing pinned either. */
		b.fake->fail_request = both[i] == VFIO_WANT_LEGACY ? VFIO_IOMMU_MAP_DMA : IOMMUFD_UAPI_MAP;
		b.fake->fail_request_errno = -EFAULT;
		b.fake->fail_times = 1;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), -EFAULT);
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(b.fake->prefaulted, 8);
		vfio_device_close(one);
		bench_done(&b);
	}
}

/* One container takes the region, the other does not: it is unmapped from the first one and refused. */
static void a_refused_region_is_nowhere(void)
{
	struct guest_region region = extra(GIB(8), -1);

	for (int order = 0; order < 2; order++) {
		setup();
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[order], &one), 0);
		CHECK_EQ(bench_open(&b, "0000:02:00.0", both[!order], &two), 0);
		for (int which = 0; which < 2; which++) {
			b.fake->fail_request = which ? IOMMUFD_UAPI_MAP : VFIO_IOMMU_MAP_DMA;
			b.fake->fail_times = 1;
			b.fake->fail_request_errno = -EFAULT;
			CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), -EFAULT);
			CHECK_HAS(b.err.text, "map guest memory 0x200000000-0x2003fffff for devices");
			CHECK(!fake_mapped(b.fake, dev(0), GIB(8), 4096) && !fake_mapped(b.fake, dev(1), GIB(8), 4096));
		}
		CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
		CHECK(fake_mapped(b.fake, dev(0), GIB(8), MIB(4)) && fake_mapped(b.fake, dev(1), GIB(8), MIB(4)));
		vfio_device_close(one);
		vfio_device_close(two);
		bench_done(&b);
	}
}

static void maps_by_file_where_it_can(void)
{
	const struct fake_maps *maps;

	setup();
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	maps = &b.fake->objects[vfio_device_ids(one).ioas - 1].maps;
	CHECK_EQ(maps->count, 2);
	CHECK(!maps->map[0].file && maps->map[1].file && maps->map[1].fd == b.memfd);
	vfio_device_close(one);
	/* A kernel without it is asked once. */
	b.fake->no_map_file = true;
	b.fake->counted = IOMMUFD_UAPI_MAP_FILE;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(b.fake->count, 1);
	CHECK(!b.fake->objects[vfio_device_ids(one).ioas - 1].maps.map[1].file);
	CHECK(fake_mapped(b.fake, dev(0), HIGH_GPA, HIGH_SIZE));
	vfio_device_close(one);
	/* A file that it does not take (not a memfd): by address, and the next file is tried again. */
	b.fake->no_map_file = false;
	b.fake->fail_request = IOMMUFD_UAPI_MAP_FILE;
	b.fake->fail_request_errno = -EINVAL;
	b.fake->fail_times = 1;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK(!b.fake->objects[vfio_device_ids(one).ioas - 1].maps.map[1].file);
	vfio_device_close(one);
	bench_done(&b);
}

static void reserved_addresses_are_a_clear_error(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		struct guest_region region = extra(GIB(8), -1);

		setup();
		/* The usual place of the interrupt window does not lie in RAM. */
		b.fake->iommus[0].reserved_start = 0xfee00000;
		b.fake->iommus[0].reserved_last = 0xfeefffff;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK_EQ(one->container->range_count, 2);
		region.gpa = 0xfed00000;
		CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), -EINVAL);
		CHECK_STR(b.err.text, "guest memory 0xfed00000-0xff0fffff covers 0xfee00000-0xfeefffff, which the host's IOMMU "
			  "cannot map: use less --memory, or another machine for this device");
		vfio_device_close(one);
		b.fake->iommus[0].reserved_start = HIGH_GPA + MIB(31);
		b.fake->iommus[0].reserved_last = HIGH_GPA + MIB(64) - 1;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), -EINVAL);
		CHECK_HAS(b.err.text, "vfio 0000:01:00.0: guest memory 0x100000000-0x101ffffff covers 0x101f00000-0x101ffffff");
		b.fake->iommus[0].reserved_start = 0;
		b.fake->iommus[0].reserved_last = 0xfff;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), -EINVAL);
		bench_done(&b);
	}
}

/* A device that joins with RAM already mapped where its IOMMU lets nothing be. */
static void a_late_reserved_range_is_told(void)
{
	setup();
	b.fake->iommus[1].reserved_start = MIB(8);
	b.fake->iommus[1].reserved_last = MIB(9) - 1;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), -EADDRINUSE);
	CHECK_HAS(b.err.text, "reserves addresses where guest memory is mapped");
	CHECK_EQ(fake_objects(b.fake, FAKE_HWPT), 1);
	vfio_device_close(one);
	bench_done(&b);
}

/* iommufd counts with all that the user has locked, type1 with what this process has. */
static void the_locked_memory_limit_is_named(void)
{
	static const char *const sentences[] = {
		"devices need 64 MiB of guest memory locked, and this process may lock 100 MiB, where all that processes of this "
		"user have locked counts, also for other machines: raise it with 'ulimit -l unlimited'",
		"devices need 64 MiB of guest memory locked, and this process may lock 48 MiB: raise it with 'ulimit -l unlimited'",
	};

	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		b.fake->others_locked = MIB(48);
		b.fake->locked_limit = MIB(100);
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), i ? 0 : -ENOMEM);
		if (i) {
			vfio_device_close(one);
			b.fake->locked_limit = MIB(48);
			CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), -ENOMEM);
		}
		CHECK_HAS(b.err.text, sentences[i]);
		bench_done(&b);
	}
}

/* A device that fits no container of type1 gets another one, which counts all memory once more. */
static void every_container_counts_against_the_limit(void)
{
	setup();
	b.fake->locked_limit = MIB(100);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	b.fake->fail_request = VFIO_GROUP_SET_CONTAINER;
	b.fake->fail_times = 1;
	b.fake->fail_request_errno = -EINVAL;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &two), -ENOMEM);
	CHECK_HAS(b.err.text, "devices need 128 MiB of guest memory locked, and this process may lock 100 MiB");
	vfio_device_close(one);
	/* Where the limit cannot be the reason it is not named. */
	b.fake->fail_request = VFIO_IOMMU_MAP_DMA;
	b.fake->fail_times = 1;
	b.fake->fail_request_errno = -ENOMEM;
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_LEGACY, &two), -ENOMEM);
	CHECK_HAS(b.err.text, "map guest memory 0x0-0x1ffffff for devices (legacy): Cannot allocate memory");
	bench_done(&b);
}

#define UUID "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"

/* No IOMMU translates for it, so nothing is pinned until another device comes. */
static void a_mediated_device_alone_makes_no_memory_resident(void)
{
	struct guest_region region = extra(GIB(8), -1);

	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		fake_mdev(b.fake, UUID, fake_group(b.fake));
		b.fake->locked_limit = 0;
		CHECK_EQ(bench_open(&b, UUID, both[i], &one), 0);
		CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
		CHECK(fake_mapped(b.fake, dev(2), GIB(8), MIB(4)));
		CHECK_EQ(b.fake->prefaulted, 0);
		CHECK_EQ(fake_pinned(b.fake), 0);
		/* In iommufd its container then pins, with the first page table. */
		b.fake->locked_limit = UINT64_MAX;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &two), 0);
		CHECK((one->container == two->container) == (both[i] == VFIO_WANT_IOMMUFD));
		CHECK_EQ(b.fake->prefaulted, 3);
		CHECK(both[i] == VFIO_WANT_LEGACY || b.fake->prefaulted_at_hwpt == 3);
		CHECK_EQ(fake_pinned(b.fake), LOW_SIZE + HIGH_SIZE + MIB(4));
		vfio_device_close(two);
		CHECK_EQ(fake_pinned(b.fake), 0);
		region.gpa = GIB(9);
		CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
		region.gpa = GIB(8);
		CHECK_EQ(b.fake->prefaulted, 3);
		vfio_device_close(one);
		bench_done(&b);
	}
}

/* The one that begins to pin is told of the limit. */
static void a_page_table_beside_a_mediated_device_names_the_limit(void)
{
	setup();
	fake_mdev(b.fake, UUID, fake_group(b.fake));
	b.fake->locked_limit = MIB(48);
	CHECK_EQ(bench_open(&b, UUID, VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &two), -ENOMEM);
	CHECK_HAS(b.err.text, "vfio 0000:01:00.0: devices need 64 MiB of guest memory locked, and this process may lock 48 MiB");
	CHECK(fake_mapped(b.fake, dev(2), 0, LOW_SIZE));
	vfio_device_close(one);
	bench_done(&b);
}

static void the_mapping_limit_is_named(void)
{
	struct guest_region region = large(GIB(8), GIB(2) + MIB(2));

	setup();
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	b.fake->type1_avail = 4;
	b.fake->counted = VFIO_IOMMU_MAP_DMA;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), -ENOSPC);
	CHECK_HAS(b.err.text, "guest memory takes 5 DMA mappings and the kernel allows 4");
	CHECK_HAS(b.err.text, "dma_entry_limit");
	CHECK_EQ(b.fake->count, 0);
	b.fake->type1_avail = 5;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_LEGACY, &one), 0);
	CHECK_EQ(b.fake->count, 5);
	/* Reached later, it is the kernel that says so. */
	CHECK_EQ(guest_memory_add(b.memory, &(struct guest_region){.gpa = GIB(16), .size = MIB(2), .host = b.host, .fd = -1},
				  &b.err), -ENOSPC);
	CHECK_HAS(b.err.text, "limit of DMA mappings is reached at guest address 0x400000000");
	vfio_device_close(one);
	bench_done(&b);
}

static void tells_whether_it_is_mapped(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		CHECK(!vfio_space_is_mapped(b.space));
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		CHECK(vfio_space_is_mapped(b.space));
		vfio_device_close(one);
		CHECK(!vfio_space_is_mapped(b.space));
		bench_done(&b);
	}
}

static void bars_reach_the_other_devices(void)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct vfio_bar bar = {.region = 0, .gpa = GIB(3), .size = 4096, .host = page};

	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		setup();
		b.fake->devices[0].dma_buf = true;
		CHECK_EQ(bench_open(&b, "0000:01:00.0", both[i], &one), 0);
		bar.device = one;
		vfio_space_map_bar(b.space, &bar);
		CHECK(!fake_mapped(b.fake, dev(0), GIB(3), 4096));
		/* A container that comes later, with another device, has it. */
		CHECK_EQ(bench_open(&b, "0000:02:00.0", both[!i], &two), 0);
		CHECK(fake_mapped(b.fake, dev(1), GIB(3), 4096));
		vfio_space_unmap_bar(b.space, &bar);
		CHECK(!fake_mapped(b.fake, dev(0), GIB(3), 4096) && !fake_mapped(b.fake, dev(1), GIB(3), 4096));
		vfio_space_unmap_bar(b.space, &bar);
		CHECK_EQ(bench_logged(&b, "warning"), 0);
		vfio_device_close(one);
		vfio_device_close(two);
		bench_done(&b);
	}
}

/* Whether the BAR at 3 GiB is mapped for a device. */
static bool reaches(int device)
{
	return fake_mapped(b.fake, dev(device), GIB(3), 4096);
}

/* One device has nobody to reach, and does not reach itself. */
static void bars_are_mapped_where_another_device_is(void)
{
	struct vfio_bar bar = {.gpa = GIB(3), .size = 4096};

	setup();
	b.fake->devices[0].dma_buf = true;
	b.fake->counted = IOMMUFD_UAPI_MAP_FILE;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	b.fake->count = 0;
	bar.device = one;
	vfio_space_map_bar(b.space, &bar);
	CHECK_EQ(b.fake->count, 0);
	CHECK(!reaches(0));
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK(reaches(1));
	vfio_device_close(two);
	CHECK(!reaches(0));
	vfio_space_unmap_bar(b.space, &bar);
	vfio_device_close(one);
	bench_done(&b);
}

/* Whichever of the two is told to. */
static void p2p_can_be_switched_off(void)
{
	for (int off = 0; off < 2; off++) {
		struct vfio_bar bar = {.gpa = GIB(3), .size = 4096};
		struct vfio_device_options options = {.backend = VFIO_WANT_IOMMUFD};

		setup();
		b.fake->devices[0].dma_buf = true;
		options.device = "0000:01:00.0";
		options.no_p2p = off == 0;
		CHECK_EQ(vfio_device_open(b.space, &options, &one, &b.err), 0);
		bar.device = one;
		options.device = "0000:02:00.0";
		options.no_p2p = off == 1;
		CHECK_EQ(vfio_device_open(b.space, &options, &two, &b.err), 0);
		vfio_space_map_bar(b.space, &bar);
		CHECK(!reaches(0) && !reaches(1));
		vfio_space_unmap_bar(b.space, &bar);
		CHECK_EQ(bench_logged(&b, "warning"), 0);
		vfio_device_close(one);
		vfio_device_close(two);
		bench_done(&b);
	}
}

/* A BAR lies where the IOMMU of a device that comes later reserves addresses: the device comes, the BAR goes. */
static void a_reserved_range_refuses_the_bar_not_the_device(void)
{
	struct vfio_bar bars[2] = {{.gpa = GIB(3), .size = 4096}, {.gpa = GIB(3) + MIB(1), .size = 4096}};
	struct vfio_device *three;
	struct fake_device *late;

	setup();
	b.fake->devices[0].dma_buf = true;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	for (unsigned int i = 0; i < 2; i++) {
		bars[i].device = one;
		bars[i].region = i;
		vfio_space_map_bar(b.space, &bars[i]);
	}
	late = fake_device(b.fake, "0000:03:00.0", fake_group(b.fake), fake_iommu(b.fake, true));
	b.fake->iommus[late->iommu].reserved_start = GIB(3);
	b.fake->iommus[late->iommu].reserved_last = GIB(3) + 4095;
	CHECK_EQ(bench_open(&b, "0000:03:00.0", VFIO_WANT_IOMMUFD, &three), 0);
	CHECK(!reaches(1) && !fake_mapped(b.fake, late, GIB(3), 4096));
	CHECK(fake_mapped(b.fake, dev(1), GIB(3) + MIB(1), 4096) && fake_mapped(b.fake, late, GIB(3) + MIB(1), 4096));
	CHECK_EQ(bench_logged(&b, "its BAR 0 at 0xc0000000 (peer to peer): the host's IOMMU cannot map there; everything "
				  "else works, and p2p=off leaves this out"), 1);
	vfio_space_unmap_bar(b.space, &bars[0]);
	vfio_space_unmap_bar(b.space, &bars[1]);
	vfio_device_close(three);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

static void a_refused_bar_is_one_line(void)
{
	struct vfio_bar bars[2] = {{.gpa = GIB(3), .size = 4096}, {.gpa = GIB(3) + 4096, .size = 4096}};

	setup();
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	bars[0].device = bars[1].device = one;
	vfio_space_map_bar(b.space, &bars[0]);
	vfio_space_map_bar(b.space, &bars[1]);
	/* Alone it has nobody to talk to. */
	CHECK_EQ(bench_logged(&b, "warning"), 0);
	CHECK_EQ(bench_open(&b, "0000:02:00.0", VFIO_WANT_IOMMUFD, &two), 0);
	CHECK_EQ(bench_logged(&b, "vfio 0000:01:00.0: other devices cannot reach its BAR"), 1);
	CHECK_EQ(bench_logged(&b, "(peer to peer): this kernel gives no dma-buf of a BAR"), 1);
	vfio_space_unmap_bar(b.space, &bars[0]);
	vfio_space_map_bar(b.space, &bars[0]);
	CHECK_EQ(bench_logged(&b, "warning"), 1);
	vfio_space_unmap_bar(b.space, &bars[1]);
	vfio_space_unmap_bar(b.space, &bars[0]);
	vfio_device_close(one);
	vfio_device_close(two);
	bench_done(&b);
}

/* A line a second, and none when it is quick. */
static void long_mapping_tells_how_far_it_is(void)
{
	struct guest_region region = large(GIB(8), GIB(6));

	setup();
	CHECK_EQ(guest_memory_add(b.memory, &region, &b.err), 0);
	b.fake->slow_map_ms = 400;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_logged(&b, "map guest memory for devices: 3.0 of 6.0 GiB"), 1);
	vfio_device_close(one);
	b.fake->slow_map_ms = 0;
	CHECK_EQ(bench_open(&b, "0000:01:00.0", VFIO_WANT_IOMMUFD, &one), 0);
	CHECK_EQ(bench_logged(&b, "map guest memory"), 1);
	vfio_device_close(one);
	bench_done(&b);
}

TEST_MAIN(TEST(memory_comes_and_goes), TEST(memory_is_populated_while_the_device_is_opened),
	  TEST(all_of_a_memory_file_is_populated), TEST(memory_is_populated_again_for_the_next_first_device),
	  TEST(a_refused_region_is_nowhere), TEST(maps_by_file_where_it_can),
	  TEST(reserved_addresses_are_a_clear_error), TEST(a_late_reserved_range_is_told),
	  TEST(the_locked_memory_limit_is_named), TEST(every_container_counts_against_the_limit),
	  TEST(a_mediated_device_alone_makes_no_memory_resident),
	  TEST(a_page_table_beside_a_mediated_device_names_the_limit), TEST(the_mapping_limit_is_named),
	  TEST(tells_whether_it_is_mapped), TEST(bars_reach_the_other_devices), TEST(bars_are_mapped_where_another_device_is),
	  TEST(p2p_can_be_switched_off), TEST(a_reserved_range_refuses_the_bar_not_the_device),
	  TEST(a_refused_bar_is_one_line), TEST(long_mapping_tells_how_far_it_is))
