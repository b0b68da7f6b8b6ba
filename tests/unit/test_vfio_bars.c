/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/pci.c and vfio/region.c: what of a device's BARs the guest reaches as memory, what is trapped, and the ROM. */
#include "tests/unit/fake_internal.h"
#include "tests/unit/vfio_pci_bench.h"
#include "vfio/region.h"

#define MSIX 0x70u

static struct pci_bench p;

static void enable(uint16_t command)
{
	fake_journal(p.base.fake);
	pb_cfg_write(&p, PCI_COMMAND, 2, command);
}

/* Decodes memory and compares the maps, as "offset+size offset+size" in hexadecimal, from BAR bar's start. */
static void check_maps(unsigned int bar, const char *expected)
{
	char got[512] = "", *text;
	uint64_t base = pb_bar(&p, bar);
	size_t n = 0;

	enable(PCI_COMMAND_MEMORY);
	text = strdup(fake_journal(p.base.fake));
	for (char *at = text; (at = strstr(at, "map ")); at++) {
		unsigned long long gpa, size;

		CHECK_EQ(sscanf(at, "map %llx, size %llx", &gpa, &size), 2);
		if (gpa >= base && gpa < base + MAX(p.fake->regions[bar].size, 4096ull))
			n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%llx+%llx", n ? " " : "",
					      gpa - (unsigned long long)base, size);
	}
	free(text);
	CHECK_STR(got, expected);
}

/* Bytes of a BAR as the fake device has them. */
static uint32_t pattern(uint64_t offset)
{
	uint8_t data[4];

	for (unsigned int i = 0; i < 4; i++)
		data[i] = (uint8_t)((offset + i) * 7 + 1);
	return get_le32(data);
}

static void msix_pages_cut_out(void)
{
	static const struct {
		uint64_t size;
		uint32_t table, pba; /* with the BAR in the low bits */
		unsigned int vectors;
		const char *bar0, *bar2;
	} layouts[] = {
		{KIB(64), 0x0000, 0x8000, 16, "1000+7000 9000+7000", "0+1000"},
		{KIB(64), 0x8000, 0xf000, 16, "0+8000 9000+6000", "0+1000"},
		{KIB(64), 0xf000, 0xf800, 16, "0+f000", "0+1000"},
		{KIB(64), 0x7ff0, 0x7000, 2, "0+7000 9000+7000", "0+1000"},
		{KIB(64), 0x4000, 0xe000, 512, "0+4000 6000+8000 f000+1000", "0+1000"},
		{KIB(64), 0x4000, 0x0002, 16, "0+4000 5000+b000", ""},
		{KIB(4), 0x0000, 0x0800, 4, "", "0+1000"},
		{KIB(16), 0x0000, 0x2000, 128, "1000+1000 3000+1000", "0+1000"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		uint64_t table;

		pb_init(&p);
		fake_pci_bar(p.fake, 0, 0, layouts[i].size, FAKE_REGION_RWM);
		fake_pci_bar(p.fake, 2, 0, KIB(4), FAKE_REGION_RWM);
		fake_pci_msix(p.fake, MSIX, layouts[i].vectors, layouts[i].table, layouts[i].pba);
		pb_start(&p);
		check_maps(0, layouts[i].bar0);
		enable(0);
		CHECK_EQ(p.maps, 0);
		check_maps(2, layouts[i].bar2);
		/* The table is the guest's, and what shares its page is the device's still. */
		table = pb_bar(&p, 0) + layouts[i].table;
		pb_mmio_write(&p, table + 8, 0x1234);
		CHECK_EQ(pb_mmio(&p, table + 8), 0x1234);
		CHECK_EQ(p.fake->regions[0].writes + p.fake->regions[0].reads, 0);
		if (layouts[i].table % 4096 == 0 && layouts[i].vectors == 16) {
			CHECK_EQ(pb_mmio(&p, table + 0x400), pattern(layouts[i].table + 0x400));
			pb_mmio_write(&p, table + 0x404, 0xcafe);
			CHECK_EQ(p.fake->regions[0].written_at, layouts[i].table + 0x404);
			CHECK_EQ(p.fake->regions[0].written, 0xcafe);
		}
		pb_done(&p);
	}
}

static void sparse_areas(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(64), FAKE_REGION_RWM);
	/* In no order; with one that ends within a page, one that begins in one, one beyond the end. */
	fake_pci_area(p.fake, 0, 0x8000, 0x2800);
	fake_pci_area(p.fake, 0, 0x1000, 0x3000);
	fake_pci_area(p.fake, 0, 0xc800, 0x1000);
	fake_pci_area(p.fake, 0, 0xf000, 0x2000);
	p.fake->regions[0].more_areas = 1000;
	fake_pci_msix(p.fake, MSIX, 4, 0x2000, 0x2800);
	pb_start(&p);
	check_maps(0, "1000+1000 3000+1000 8000+2000");
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 0) + 0xd000), pattern(0xd000));
	pb_done(&p);
	/* Overlapping ones: what comes after is trapped. More than there is room for: the rest is. */
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(64), FAKE_REGION_RWM);
	fake_pci_area(p.fake, 0, 0x1000, 0x3000);
	fake_pci_area(p.fake, 0, 0x3000, 0x2000);
	fake_pci_area(p.fake, 0, 0x9000, 0x2000);
	pb_start(&p);
	check_maps(0, "1000+3000");
	pb_done(&p);
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, MIB(1), FAKE_REGION_RWM);
	for (unsigned int i = 0; i < FAKE_AREAS; i++)
		fake_pci_area(p.fake, 0, i * 0x2000, 0x1000);
	pb_start(&p);
	enable(PCI_COMMAND_MEMORY);
	CHECK_EQ(p.maps, VFIO_REGION_AREAS);
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 0) + (FAKE_AREAS - 1) * 0x2000), pattern((FAKE_AREAS - 1) * 0x2000));
	pb_done(&p);
}

static void below_a_page(void)
{
	uint64_t at;

	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, 256, FAKE_REGION_RWM);
	fake_pci_bar(p.fake, 1, 0, 256, FAKE_REGION_RW);
	pb_start(&p);
	at = pb_bar(&p, 0);
	CHECK_EQ(at % 4096, 0);
	check_maps(0, "0+1000");
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 1) + 4), pattern(4));
	/* Moved into a page's middle it can no longer be mapped, and is trapped. */
	pb_cfg_write(&p, PCI_BASE_ADDRESS_0, 4, (uint32_t)at + 0x40100);
	CHECK_EQ(p.maps, 0);
	CHECK_EQ(pb_mmio(&p, at + 0x40100 + 8), pattern(8));
	pb_cfg_write(&p, PCI_BASE_ADDRESS_0, 4, (uint32_t)at);
	CHECK_EQ(p.maps, 1);
	pb_done(&p);
}

static void large_and_aligned(void)
{
	static const uint64_t sizes[] = {MIB(2), MIB(64), GIB(1), GIB(8)};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t align = MIN(sizes[i], GIB(1));
		char expected[64];

		pb_init(&p);
		fake_pci_bar(p.fake, 0, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, sizes[i],
			     FAKE_REGION_RWM);
		pb_start(&p);
		CHECK(pb_bar(&p, 0) >= GIB(4) && pb_bar(&p, 0) % sizes[i] == 0);
		snprintf(expected, sizeof(expected), "0+%llx", (unsigned long long)sizes[i]);
		check_maps(0, expected);
		CHECK_EQ((uintptr_t)p.host % align, 0);
		pb_done(&p);
	}
	/* An area within: aligned as its offset is, so that the device's large pages fit. */
	pb_init(&p);
	fake_pci_bar(p.fake, 0, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, MIB(64), FAKE_REGION_RWM);
	fake_pci_msix(p.fake, MSIX, 4, 0, 0x800);
	pb_start(&p);
	check_maps(0, "1000+3fff000");
	CHECK_EQ((uintptr_t)p.host % MIB(64), 0x1000);
	pb_done(&p);
}

static void trapped(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, PCI_BASE_ADDRESS_SPACE_IO, 64, FAKE_REGION_RW);
	fake_pci_bar(p.fake, 1, 0, KIB(8), FAKE_REGION_RW);
	fake_pci_bar(p.fake, 2, 0, KIB(8), FAKE_REGION_RWM);
	pb_start(&p);
	enable(PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	CHECK_EQ(p.maps, 1);
	{
		uint64_t port = pb_cfg(&p, PCI_BASE_ADDRESS_0, 4) & ~3u;
		uint8_t byte = 0x77;

		CHECK(bus_read(p.rig.pio, port + 5, &byte, 1));
		CHECK_EQ(byte, pattern(5) & 0xff);
		CHECK(bus_write(p.rig.pio, port + 7, &byte, 1));
		CHECK_EQ(p.fake->regions[0].written_at, 7);
	}
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 1) + 0x1004), pattern(0x1004));
	/* A read that fails gives ones, a write that fails goes nowhere. */
	p.fake->regions[1].refuse = -EIO;
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 1)), 0xffffffff);
	pb_mmio_write(&p, pb_bar(&p, 1), 1);
	pb_done(&p);
}

/* What could be mapped but is not is slow, and all there. */
static void not_to_be_mapped(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(8), FAKE_REGION_RWM);
	p.fake->no_mmap = true;
	pb_start(&p);
	check_maps(0, "");
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 0) + 16), pattern(16));
	pb_done(&p);
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(8), FAKE_REGION_RWM);
	p.refuse_map = true;
	pb_start(&p);
	check_maps(0, "");
	CHECK_LOGGED(&p, "BAR 0 is not mapped and will be slow: no slot", 1);
	CHECK_EQ(pb_mmio(&p, pb_bar(&p, 0) + 16), pattern(16));
	/* A guest that tries again fills no log. */
	for (unsigned int i = 0; i < 10; i++)
		enable(i & 1 ? PCI_COMMAND_MEMORY : 0);
	CHECK_LOGGED(&p, "will be slow", 1);
	p.refuse_map = false;
	enable(0);
	check_maps(0, "0+2000");
	pb_done(&p);
}

/* ---- the function stops and starts ---- */

#define PM 0x40u
#define PMCSR (PM + PCI_PM_CTRL)
#define EXPRESS 0x80u
#define AF 0xd0u

static const struct {
	unsigned int offset;
	uint16_t value;
	const char *name;
} resets[] = {
	{EXPRESS + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR, "function reset 80"},
	{AF + PCI_AF_CTRL, PCI_AF_CTRL_FLR, "function reset d0"},
};

/* A device with power states and both kinds of function reset. */
static void with_power(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(8), FAKE_REGION_RWM);
	fake_pci_bar(p.fake, 1, PCI_BASE_ADDRESS_SPACE_IO, 64, FAKE_REGION_RW);
	fake_pci_cap(p.fake, PM, PCI_CAP_ID_PM);
	fake_pci_cap(p.fake, EXPRESS, PCI_CAP_ID_EXP);
	p.fake->config[EXPRESS + PCI_EXP_FLAGS] = 2;
	fake_pci_cap(p.fake, AF, PCI_CAP_ID_AF);
}

/* What happened in the kernel since the last time, at least this and in this order. */
static void check_order(const char *const *steps)
{
	const char *at = fake_journal(p.base.fake);

	for (; *steps; steps++) {
		const char *found = strstr(at, *steps);

		if (!found)
			printf("# no \"%s\" in: %s\n", *steps, at);
		CHECK(found);
		at = found + 1;
	}
}

#define CHECK_ORDER(...) check_order((const char *const[]){__VA_ARGS__, NULL})

static void asleep_it_has_no_bars(void)
{
	static const unsigned int lengths[] = {1, 2, 4};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		for (unsigned int state = 1; state <= 3; state++) {
			uint64_t at, port;
			uint8_t byte = 0;

			with_power();
			pb_start(&p);
			at = pb_bar(&p, 0);
			port = pb_cfg(&p, PCI_BASE_ADDRESS_1, 4) & ~3u;
			enable(PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
			fake_journal(p.base.fake);
			pb_cfg_write(&p, PMCSR, lengths[i], state);
			CHECK_ORDER("unmap", "power");
			CHECK_EQ(p.maps, 0);
			CHECK_EQ(pb_mmio(&p, at), 0xffffffff);
			pb_mmio_write(&p, at, 1);
			CHECK(bus_read(p.rig.pio, port, &byte, 1));
			CHECK_EQ(byte, 0xff);
			CHECK_EQ(p.fake->regions[0].reads + p.fake->regions[0].writes + p.fake->regions[1].reads, 0);
			pb_cfg_write(&p, PMCSR, lengths[i], 0);
			CHECK_ORDER("power 0", "command 3", "map");
			CHECK_EQ(p.maps, 1);
			CHECK_EQ(pb_mmio(&p, at + 4), pattern(4));
			/* Nothing changes: nothing is unmapped. */
			pb_cfg_write(&p, PMCSR, lengths[i], 0);
			CHECK_EQ(strlen(fake_journal(p.base.fake)), 0);
			pb_done(&p);
		}
}

/* The kernel gives it the command register back that it had when it went to sleep. */
static void the_command_of_meanwhile_holds(void)
{
	with_power();
	pb_start(&p);
	pb_cfg_write(&p, PMCSR, 2, 3);
	enable(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	CHECK_EQ(p.maps, 0);
	pb_cfg_write(&p, PMCSR, 2, 0);
	CHECK_ORDER("power 0", "command 6", "map");
	CHECK(fake_decodes(p.device));
	pb_cfg_write(&p, PMCSR, 2, 3);
	enable(0);
	fake_journal(p.base.fake);
	pb_cfg_write(&p, PMCSR, 2, 0);
	CHECK_ORDER("power 0", "command 0");
	CHECK_EQ(p.maps, 0);
	pb_done(&p);
}

static void one_that_stays_asleep_has_no_bars(void)
{
	with_power();
	pb_start(&p);
	enable(PCI_COMMAND_MEMORY);
	pb_cfg_write(&p, PMCSR, 2, 3);
	p.fake->stuck = true;
	pb_cfg_write(&p, PMCSR, 2, 0);
	CHECK_EQ(p.maps, 0);
	/* Later the host resets it, and the guest sees it awake. */
	p.fake->config[PMCSR] = 0;
	CHECK_EQ(p.maps, 0);
	CHECK_EQ(pb_cfg(&p, PMCSR, 2), 0);
	CHECK_EQ(p.maps, 1);
	/* It is gone: all that can be read are ones. */
	p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].refuse = -EIO;
	CHECK_EQ(pb_cfg(&p, PMCSR, 2), 0xffff);
	CHECK_EQ(p.maps, 0);
	p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].refuse = 0;
	pb_done(&p);
}

/* A device that does not decode, whatever the guest has written, is not mapped: an access would end the machine. */
static void one_that_takes_no_command_has_no_bars(void)
{
	int *refuse;

	for (int reset = 0; reset < 2; reset++) {
		with_power();
		pb_start(&p);
		refuse = &p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].refuse;
		if (reset)
			enable(PCI_COMMAND_MEMORY);
		*refuse = -EIO;
		if (reset)
			pb_cfg_write(&p, resets[0].offset, 2, resets[0].value);
		else
			enable(PCI_COMMAND_MEMORY);
		CHECK_EQ(p.maps, 0);
		CHECK_EQ(pb_mmio(&p, pb_bar(&p, 0)), 0xffffffff);
		*refuse = 0;
		enable(0);
		enable(PCI_COMMAND_MEMORY);
		CHECK(fake_decodes(p.device));
		CHECK_EQ(p.maps, 1);
		pb_done(&p);
	}
}

static void stops_decoding_after_the_last_access(void)
{
	with_power();
	pb_start(&p);
	enable(PCI_COMMAND_MEMORY);
	CHECK_ORDER("command 2", "map");
	enable(PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	CHECK_ORDER("command 406", "unmap", "command 404");
	enable(PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	CHECK_ORDER("command 407", "map", "command 3");
	enable(PCI_COMMAND_MASTER | PCI_COMMAND_IO);
	CHECK_ORDER("command 7", "unmap", "command 5");
	pb_done(&p);
}

static void a_reset_by_the_guest_takes_the_maps_away_meanwhile(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(resets); i++) {
		with_power();
		pb_start(&p);
		enable(PCI_COMMAND_MEMORY);
		fake_journal(p.base.fake);
		pb_cfg_write(&p, resets[i].offset, 2, resets[i].value);
		CHECK_ORDER("unmap", resets[i].name, "command 2", "map");
		CHECK_EQ(p.maps, 1);
		/* Asleep it wakes up. */
		pb_cfg_write(&p, PMCSR, 2, 3);
		pb_cfg_write(&p, resets[i].offset, 2, resets[i].value);
		CHECK_EQ(p.maps, 1);
		/* Other bits reset nothing. */
		fake_journal(p.base.fake);
		pb_cfg_write(&p, EXPRESS + PCI_EXP_DEVCTL, 2, 0x2810);
		pb_cfg_write(&p, AF + PCI_AF_CTRL, 1, 0);
		CHECK_EQ(strlen(fake_journal(p.base.fake)), 0);
		pb_done(&p);
	}
}

/* The guest does not see this capability, which is too long for its place; the kernel knows it all the same. */
static void a_reset_by_a_hidden_capability_does_as_well(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(8), FAKE_REGION_RWM);
	fake_pci_cap(p.fake, 0xd0, PCI_CAP_ID_EXP);
	p.fake->config[0xd0 + PCI_EXP_FLAGS] = 2;
	pb_start(&p);
	CHECK_EQ(pb_cfg(&p, PCI_CAPABILITY_LIST, 1), 0);
	enable(PCI_COMMAND_MEMORY);
	fake_journal(p.base.fake);
	pb_cfg_write(&p, 0xd0 + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	CHECK_ORDER("unmap", "function reset d0", "command 2", "map");
	pb_done(&p);
}

/* Another device reaches the BAR while it is decoded, and not a moment longer. */
static void peer_to_peer(void)
{
	struct fake_device *peer;
	struct vfio_device *device;
	uint64_t at;

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++) {
		pb_init(&p);
		fake_pci_bar(p.fake, 0, 0, KIB(8), FAKE_REGION_RWM);
		p.device->dma_buf = true;
		peer = fake_device(p.base.fake, "0000:02:00.0", fake_group(p.base.fake), p.device->iommu);
		CHECK_EQ(pb_create(&p, want), 0);
		CHECK_EQ(bench_open(&p.base, "0000:02:00.0", want, &device), 0);
		at = pb_bar(&p, 0);
		CHECK(!fake_mapped(p.base.fake, peer, at, KIB(8)));
		enable(PCI_COMMAND_MEMORY);
		CHECK(fake_mapped(p.base.fake, peer, at, KIB(8)));
		pb_cfg_write(&p, PCI_BASE_ADDRESS_0, 4, (uint32_t)at + 0x10000);
		CHECK(!fake_mapped(p.base.fake, peer, at, KIB(4)));
		CHECK(fake_mapped(p.base.fake, peer, at + 0x10000, KIB(8)));
		/* A device that is tried has all mapped again, also what a vCPU has mapped meanwhile. */
		vfio_space_map_bars_in(p.base.space, device->container);
		CHECK(fake_mapped(p.base.fake, peer, at + 0x10000, KIB(8)));
		CHECK_LOGGED(&p, "cannot reach", 0);
		vfio_device_close(vfio_pci_remove(p.pci));
		p.pci = NULL;
		CHECK(!fake_mapped(p.base.fake, peer, at + 0x10000, KIB(4)));
		vfio_device_close(device);
		pb_done(&p);
	}
}

/* Whatever stops the device's decoding for a while, other devices reach it again afterwards. */
static void peers_come_back(void)
{
	struct fake_device *peer;
	struct vfio_device *device;
	uint64_t at;

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++) {
		with_power();
		p.device->dma_buf = true;
		peer = fake_device(p.base.fake, "0000:02:00.0", fake_group(p.base.fake), p.device->iommu);
		CHECK_EQ(pb_create(&p, want), 0);
		CHECK_EQ(bench_open(&p.base, "0000:02:00.0", want, &device), 0);
		at = pb_bar(&p, 0);
		enable(PCI_COMMAND_MEMORY);
		for (size_t i = 0; i < ARRAY_SIZE(resets); i++) {
			pb_cfg_write(&p, resets[i].offset, 2, resets[i].value);
			CHECK(fake_mapped(p.base.fake, peer, at, KIB(8)));
		}
		pb_cfg_write(&p, PMCSR, 2, 3);
		CHECK(!fake_mapped(p.base.fake, peer, at, KIB(4)));
		pb_cfg_write(&p, PMCSR, 2, 0);
		CHECK(fake_mapped(p.base.fake, peer, at, KIB(8)));
		pthread_mutex_lock(&p.lock);
		CHECK_EQ(vfio_device_reset(p.base.space->devices), 0);
		pthread_mutex_unlock(&p.lock);
		CHECK(fake_mapped(p.base.fake, peer, at, KIB(8)));
		vfio_device_close(device);
		pb_done(&p);
	}
}

/* There other devices would not reach it. */
static void placed_where_the_iommu_maps(void)
{
	static const uint32_t kinds[] = {0, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH};

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++)
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
			struct fake_iommu *iommu;
			uint64_t usual;

			pb_init(&p);
			fake_pci_bar(p.fake, 0, kinds[i], KIB(64), FAKE_REGION_RWM);
			CHECK_EQ(pb_create(&p, want), 0);
			usual = pb_bar(&p, 0);
			vfio_device_close(vfio_pci_remove(p.pci));
			p.pci = NULL;
			iommu = &p.base.fake->iommus[p.device->iommu];
			iommu->reserved_start = usual;
			iommu->reserved_last = usual + MIB(1) - 1;
			CHECK_EQ(pb_create(&p, want), 0);
			CHECK_EQ(pb_bar(&p, 0), usual + MIB(1));
			pb_done(&p);
			/* In the other window, if that is the only place; and if there is none, where it always was. */
			pb_init(&p);
			fake_pci_bar(p.fake, 0, kinds[i], KIB(64), FAKE_REGION_RWM);
			iommu = &p.base.fake->iommus[p.device->iommu];
			iommu->reserved_start = kinds[i] ? HIGH_GPA + HIGH_SIZE : LOW_SIZE;
			iommu->reserved_last = kinds[i] ? UINT64_MAX - 1 : GIB(4) - 1;
			CHECK_EQ(pb_create(&p, want), 0);
			CHECK_EQ(pb_bar(&p, 0), kinds[i] ? 0xc0000000 : usual);
			pb_done(&p);
		}
}

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Decoding comes and goes on a vCPU's thread: a device that nobody else reaches costs the same calls with any BAR. */
static void a_large_bar_costs_what_a_small_one_does(void)
{
	static const uint64_t sizes[] = {KIB(64), GIB(64)};

	for (enum vfio_want want = VFIO_WANT_IOMMUFD; want <= VFIO_WANT_LEGACY; want++) {
		unsigned int calls[2];

		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			uint64_t begin;

			pb_init(&p);
			fake_pci_bar(p.fake, 0, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, sizes[i],
				     FAKE_REGION_RWM);
			p.device->dma_buf = true;
			CHECK_EQ(pb_create(&p, want), 0);
			calls[i] = p.base.fake->calls;
			begin = thread_ns();
			p.base.fake->counted = want == VFIO_WANT_LEGACY ? VFIO_IOMMU_MAP_DMA : IOMMUFD_UAPI_MAP_FILE;
			for (int n = 0; n < 10; n++) {
				enable(PCI_COMMAND_MEMORY);
				enable(0);
			}
			calls[i] = p.base.fake->calls - calls[i];
			CHECK_EQ(p.base.fake->count, 0);
			CHECK(thread_ns() - begin < 50000000);
			pb_done(&p);
		}
		CHECK_EQ(calls[0], calls[1]);
	}
}

static uint64_t enable_rom(void)
{
	uint32_t rom;

	pb_cfg_write(&p, PCI_ROM_ADDRESS, 4, 0xfffff801);
	rom = ~(pb_cfg(&p, PCI_ROM_ADDRESS, 4) & ~0x7ffu) + 1;
	pb_cfg_write(&p, PCI_ROM_ADDRESS, 4, 0xc8000000 | PCI_ROM_ADDRESS_ENABLE);
	enable(PCI_COMMAND_MEMORY);
	return rom;
}

static void rom(void)
{
	char path[] = "/tmp/rom-XXXXXX";
	int fd;

	/* Off. */
	pb_init(&p);
	p.fake->regions[PCI_ROM_BAR] = (struct fake_region){.size = KIB(64), .flags = VFIO_REGION_INFO_FLAG_READ};
	pb_start(&p);
	pb_cfg_write(&p, PCI_ROM_ADDRESS, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_ROM_ADDRESS, 4), 0);
	pb_done(&p);
	/* On: read from the device when the guest looks at it first, once. */
	pb_init(&p);
	p.fake->regions[PCI_ROM_BAR] = (struct fake_region){.size = KIB(64), .flags = VFIO_REGION_INFO_FLAG_READ};
	p.options.rom = true;
	pb_start(&p);
	CHECK_EQ(enable_rom(), KIB(64));
	CHECK_EQ(p.fake->regions[PCI_ROM_BAR].reads, 0);
	CHECK_EQ(pb_mmio(&p, 0xc8000100), pattern(0x100));
	CHECK_EQ(pb_mmio(&p, 0xc800fffc), pattern(0xfffc));
	CHECK_EQ(p.fake->regions[PCI_ROM_BAR].reads, 1);
	pb_mmio_write(&p, 0xc8000000, 0);
	CHECK_EQ(pb_mmio(&p, 0xc8000000), pattern(0));
	pb_done(&p);
	/* One that cannot be read. */
	pb_init(&p);
	p.fake->regions[PCI_ROM_BAR] = (struct fake_region){.size = KIB(64), .flags = VFIO_REGION_INFO_FLAG_READ,
							    .refuse = -EIO};
	p.options.rom = true;
	pb_start(&p);
	enable_rom();
	CHECK_EQ(pb_mmio(&p, 0xc8000000), 0xffffffff);
	CHECK_LOGGED(&p, "its ROM cannot be read", 1);
	pb_done(&p);
	/* From a file, whose size is no power of two. */
	fd = mkstemp(path);
	CHECK(fd >= 0 && write(fd, "\x55\xaa\x01\x02hello", 9) == 9 && ftruncate(fd, 5000) == 0);
	close(fd);
	pb_init(&p);
	p.options.rom_file = path;
	pb_start(&p);
	CHECK_EQ(enable_rom(), KIB(8));
	CHECK_EQ(pb_mmio(&p, 0xc8000000), 0x0201aa55);
	CHECK_EQ(pb_mmio(&p, 0xc8001400), 0xffffffff);
	pb_done(&p);
	/* And one that somebody else has opened: the name is only a name. */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	unlink(path);
	pb_init(&p);
	p.options.rom_file = path;
	p.options.rom_fd = &fd;
	pb_start(&p);
	CHECK_EQ(enable_rom(), KIB(8));
	CHECK_EQ(pb_mmio(&p, 0xc8000000), 0x0201aa55);
	pb_done(&p);
	CHECK_EQ(close(fd), 0);
	pb_init(&p);
	p.options.rom_file = "/tmp/there/is/no/such.rom";
	CHECK_EQ(pb_create(&p, VFIO_WANT_LEGACY), -ENOENT);
	CHECK_HAS(p.base.err.text, "rom=/tmp/there/is/no/such.rom");
	p.options.rom_file = "/tmp";
	CHECK_EQ(pb_create(&p, VFIO_WANT_LEGACY), -EINVAL);
	CHECK_HAS(p.base.err.text, "a ROM is a file of 1 byte to 16 MiB");
	pb_done(&p);
}

TEST_MAIN(TEST(msix_pages_cut_out), TEST(sparse_areas), TEST(below_a_page), TEST(large_and_aligned), TEST(trapped),
	  TEST(not_to_be_mapped), TEST(asleep_it_has_no_bars), TEST(the_command_of_meanwhile_holds),
	  TEST(one_that_stays_asleep_has_no_bars), TEST(one_that_takes_no_command_has_no_bars),
	  TEST(stops_decoding_after_the_last_access),
	  TEST(a_reset_by_the_guest_takes_the_maps_away_meanwhile),
	  TEST(a_reset_by_a_hidden_capability_does_as_well), TEST(peer_to_peer), TEST(peers_come_back),
	  TEST(placed_where_the_iommu_maps), TEST(a_large_bar_costs_what_a_small_one_does), TEST(rom))
