/* SPDX-License-Identifier: Apache-2.0 */
/* vfio/pci_config.c: what the guest sees of a device's config space, and what of its writes reaches the device. */
#include "tests/unit/vfio_pci_bench.h"

static struct pci_bench p;

static const uint8_t ids[] = {PCI_CAP_ID_PM,   PCI_CAP_ID_MSI,  PCI_CAP_ID_MSIX, PCI_CAP_ID_EXP,
			      PCI_CAP_ID_VNDR, PCI_CAP_ID_EA,   PCI_CAP_ID_VPD,  PCI_CAP_ID_AF};

/* How many capabilities the guest finds in the chain; each once. */
static unsigned int count_caps(void)
{
	unsigned int at = pb_cfg(&p, PCI_CAPABILITY_LIST, 1), count = 0;
	bool seen[256] = {false};

	for (; at; at = pb_cfg(&p, at + 1, 1)) {
		CHECK(at >= PCI_STD_HEADER_SIZEOF && at % 4 == 0 && !seen[at]);
		seen[at] = true;
		count++;
	}
	return count;
}

static unsigned int ext_caps(uint16_t wanted, unsigned int *found)
{
	unsigned int at = 256, count = 0;

	*found = 0;
	for (uint32_t header; at && (header = pb_cfg(&p, at, 4)); at = PCI_EXT_CAP_NEXT(header)) {
		CHECK(count++ < 100);
		if (PCI_EXT_CAP_ID(header) == wanted)
			*found = at;
	}
	return count;
}

static void identity(void)
{
	pb_init(&p);
	put_le16(p.fake->config + PCI_SUBSYSTEM_VENDOR_ID, 0x1af4);
	put_le16(p.fake->config + PCI_SUBSYSTEM_ID, 0x1100);
	p.fake->config[PCI_HEADER_TYPE] = 0x80; /* one of several functions */
	pb_start(&p);
	CHECK_EQ(pb_cfg(&p, PCI_VENDOR_ID, 4), 0x00101b36);
	CHECK_EQ(pb_cfg(&p, PCI_CLASS_REVISION, 4), 0x01080202);
	CHECK_EQ(pb_cfg(&p, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
	CHECK_EQ(pb_cfg(&p, PCI_HEADER_TYPE, 1), 0);
	CHECK_EQ(pb_cfg(&p, PCI_INTERRUPT_PIN, 1), 1);
	/* It stays what it was, whatever becomes of the device. */
	put_le32(p.fake->config + PCI_VENDOR_ID, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_VENDOR_ID, 4), 0x00101b36);
	pb_cfg_write(&p, PCI_VENDOR_ID, 4, 0);
	CHECK_EQ(pb_cfg(&p, PCI_VENDOR_ID, 4), 0x00101b36);
	pb_done(&p);
}

static void chain_filtered(void)
{
	static const uint8_t shown[] = {1, 1, 1, 1, 1, 0, 1, 1};

	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(16), FAKE_REGION_RW);
	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++)
		if (ids[i] == PCI_CAP_ID_MSI)
			fake_pci_msi(p.fake, 0x40 + i * 0x14, 0, 0);
		else if (ids[i] == PCI_CAP_ID_MSIX)
			fake_pci_msix(p.fake, 0x40 + i * 0x14, 4, 0x2000, 0x3000);
		else
			fake_pci_cap(p.fake, 0x40 + i * 0x14, ids[i]);
	p.fake->config[0x42] = 3; /* power management, version 3 */
	put_le16(p.fake->config + 0x40 + 3 * 0x14 + PCI_EXP_FLAGS, 1);
	pb_start(&p);
	CHECK_EQ(count_caps(), 7);
	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++)
		CHECK_EQ(!!rig_find_cap(&p.rig, DEVFN, ids[i], 0), shown[i]);
	/* The hidden one is gone from its place, too, and cannot be called back. */
	pb_cfg_write(&p, 0x40 + 5 * 0x14, 2, PCI_CAP_ID_EA);
	CHECK_EQ(pb_cfg(&p, 0x40 + 5 * 0x14, 2), 0);
	CHECK_EQ(p.fake->config[0x40 + 5 * 0x14], PCI_CAP_ID_EA);
	/* One that is passed on is the device's own, live and in both directions. */
	p.fake->config[0x44] = 2;
	CHECK_EQ(pb_cfg(&p, 0x44, 2), 2);
	pb_cfg_write(&p, 0x44, 2, 3);
	CHECK_EQ(p.fake->config[0x44], 3);
	pb_done(&p);
}

static void first_and_last_hidden(void)
{
	pb_init(&p);
	fake_pci_cap(p.fake, 0x40, PCI_CAP_ID_EA);
	fake_pci_cap(p.fake, 0x50, PCI_CAP_ID_PM);
	fake_pci_cap(p.fake, 0x60, PCI_CAP_ID_HT);
	pb_start(&p);
	CHECK_EQ(pb_cfg(&p, PCI_CAPABILITY_LIST, 1), 0x50);
	CHECK_EQ(pb_cfg(&p, 0x50, 2), PCI_CAP_ID_PM);
	pb_done(&p);
}

/* Chains that no device should have: each ends, and shows what there is once. */
static void broken_chains(void)
{
	static const struct {
		uint8_t caps[6], last; /* places, and where the last one leads */
		unsigned int shown;
	} chains[] = {
		{{0x40}, 0x40, 1},
		{{0x40, 0x50}, 0x40, 2},
		{{0x40, 0x50, 0x60, 0x70, 0x80}, 0x40, 5},
		{{0x40, 0x50, 0x60, 0x70, 0x80}, 0x60, 5},
		{{0x40, 0x50, 0x60}, 0x3c, 3},
		{{0x40, 0xfc}, 0, 2},
		{{0x43, 0x51}, 0x53, 2},
	};

	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		unsigned int link = PCI_CAPABILITY_LIST;

		pb_init(&p);
		p.fake->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
		for (unsigned int k = 0; chains[i].caps[k]; k++) {
			p.fake->config[link] = chains[i].caps[k];
			p.fake->config[chains[i].caps[k] & ~3u] = PCI_CAP_ID_VNDR;
			link = (chains[i].caps[k] & ~3u) + 1;
		}
		p.fake->config[link] = chains[i].last;
		pb_start(&p);
		CHECK_EQ(count_caps(), chains[i].shown);
		pb_done(&p);
	}
}

/* One that does not fit before the end of the space is not shown. */
static void out_of_range(void)
{
	pb_init(&p);
	fake_pci_cap(p.fake, 0x40, PCI_CAP_ID_PM);
	fake_pci_msi(p.fake, 0xf4, PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT, 0);
	pb_start(&p);
	CHECK_EQ(count_caps(), 1);
	pb_cfg_write(&p, 0xf6, 2, PCI_MSI_FLAGS_ENABLE);
	CHECK_EQ(p.fake->irqs[VFIO_PCI_MSI_IRQ_INDEX].enabled, 0);
	pb_done(&p);
	/* A table in no BAR, or beyond the end of its own, is refused. */
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(16), FAKE_REGION_RW);
	fake_pci_msix(p.fake, 0x40, 4, 7, 0);
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
	CHECK_HAS(p.base.err.text, "MSI-X table is in no BAR");
	put_le32(p.fake->config + 0x40 + PCI_MSIX_TABLE, 0x3fd0);
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
	CHECK_HAS(p.base.err.text, "outside of its BAR");
	put_le32(p.fake->config + 0x40 + PCI_MSIX_TABLE, 0x2000);
	put_le32(p.fake->config + 0x40 + PCI_MSIX_PBA, 0xfffffff8);
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
	CHECK_HAS(p.base.err.text, "outside of its BAR");
	pb_done(&p);
}

static void extended_filtered(void)
{
	static const uint16_t chain[] = {PCI_EXT_CAP_ID_SRIOV, PCI_EXT_CAP_ID_ERR, PCI_EXT_CAP_ID_ATS, PCI_EXT_CAP_ID_DSN,
					 PCI_EXT_CAP_ID_REBAR};
	unsigned int at, sriov;

	pb_init(&p);
	for (unsigned int i = 0; i < ARRAY_SIZE(chain); i++)
		fake_pci_ext_cap(p.fake, 0x100 + i * 0x40, chain[i]);
	pb_start(&p);
	CHECK_EQ(ext_caps(PCI_EXT_CAP_ID_ERR, &at), 3);
	CHECK_EQ(at, 0x140);
	ext_caps(PCI_EXT_CAP_ID_DSN, &at);
	CHECK_EQ(at, 0x1c0);
	ext_caps(PCI_EXT_CAP_ID_SRIOV, &sriov);
	CHECK_EQ(sriov, 0);
	ext_caps(PCI_EXT_CAP_ID_REBAR, &sriov);
	CHECK_EQ(sriov, 0);
	CHECK_EQ(pb_cfg(&p, 0x200, 4), 0);
	CHECK_EQ(pb_cfg(&p, 0x180, 4), 0);
	pb_done(&p);
	/* In a circle, of a length that divides nothing. */
	pb_init(&p);
	for (unsigned int i = 0; i < 7; i++)
		fake_pci_ext_cap(p.fake, 0x100 + i * 0x40, PCI_EXT_CAP_ID_VNDR);
	put_le32(p.fake->config + 0x280, 0x1000b | 0x180u << 20);
	pb_start(&p);
	CHECK_EQ(ext_caps(PCI_EXT_CAP_ID_VNDR, &at), 7);
	pb_done(&p);
}

/* An endpoint on the root bus has no link. */
static void express(void)
{
	static const struct { uint16_t flags, shown; } types[] = {
		{0x0002, 0x0092}, {0x0012, 0x0092}, {0x0001, 0x0091}, {0x0092, 0x0092},
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		pb_init(&p);
		fake_pci_cap(p.fake, 0x40, PCI_CAP_ID_EXP);
		put_le16(p.fake->config + 0x40 + PCI_EXP_FLAGS, types[i].flags);
		put_le32(p.fake->config + 0x40 + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
		put_le32(p.fake->config + 0x40 + PCI_EXP_LNKCAP, 0x00477c42);
		pb_start(&p);
		CHECK_EQ(pb_cfg(&p, 0x42, 2), types[i].shown);
		CHECK_EQ(pb_cfg(&p, 0x40 + PCI_EXP_LNKCAP, 4), types[i].flags == 0x92 ? 0x00477c42 : 0);
		CHECK_EQ(pb_cfg(&p, 0x40 + PCI_EXP_DEVCAP, 4), PCI_EXP_DEVCAP_FLR);
		/* A reset by the guest reaches the device, where the kernel carries it out. */
		pb_cfg_write(&p, 0x40 + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
		CHECK_HAS(fake_journal(p.base.fake), "function reset 40");
		pb_done(&p);
	}
}

static void bridges(void)
{
	for (uint8_t type = 1; type <= 2; type++) {
		pb_init(&p);
		p.fake->config[PCI_HEADER_TYPE] = type;
		CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
		CHECK_HAS(p.base.err.text, "vfio " BDF ": it is a bridge");
		pb_done(&p);
	}
	/* One that is dead is no bridge. */
	pb_init(&p);
	memset(p.fake->config, 0xff, sizeof(p.fake->config));
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EIO);
	CHECK_HAS(p.base.err.text, "does not answer");
	pb_done(&p);
	pb_init(&p);
	p.device->flags = VFIO_DEVICE_FLAGS_PLATFORM;
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
	CHECK_HAS(p.base.err.text, "not a PCI device");
	pb_done(&p);
}

static void small_config_space(void)
{
	pb_init(&p);
	fake_pci_cap(p.fake, 0x40, PCI_CAP_ID_PM);
	put_le32(p.fake->config + 256, 0x10001);
	p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 256;
	pb_start(&p);
	CHECK_EQ(count_caps(), 1);
	CHECK_EQ(pb_cfg(&p, 0x100, 4), 0);
	p.fake->config[255] = 0x5a;
	CHECK_EQ(pb_cfg(&p, 255, 1), 0x5a);
	pb_cfg_write(&p, 0x100, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, 0x100, 4), 0);
	pb_done(&p);
	pb_init(&p);
	p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 32;
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
	CHECK_HAS(p.base.err.text, "no config space");
	pb_done(&p);
}

/* The device decodes before the guest can reach it, and until it cannot. */
static void command_order(void)
{
	char expected[160];
	uint64_t at;

	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(16), FAKE_REGION_RWM);
	pb_start(&p);
	at = pb_bar(&p, 0);
	fake_journal(p.base.fake);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	snprintf(expected, sizeof(expected), "command 6, map %llx, size 4000", (unsigned long long)at);
	CHECK_STR(fake_journal(p.base.fake), expected);
	CHECK_EQ(pb_cfg(&p, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	snprintf(expected, sizeof(expected), "unmap %llx, command 4", (unsigned long long)at);
	CHECK_STR(fake_journal(p.base.fake), expected);
	/* A write of one byte, and one that covers the status register beside it. */
	pb_cfg_write(&p, PCI_COMMAND + 1, 1, PCI_COMMAND_INTX_DISABLE >> 8);
	CHECK_STR(fake_journal(p.base.fake), "command 404");
	p.fake->config[PCI_STATUS + 1] = 0;
	pb_cfg_write(&p, PCI_COMMAND, 4, 0xf9000004);
	CHECK_STR(fake_journal(p.base.fake), "command 4");
	CHECK_EQ(p.fake->config[PCI_STATUS + 1], 0xf9);
	CHECK_EQ(get_le16(p.fake->config + PCI_COMMAND), 4);
	/* That beside it is written alone: what was read of the command a moment ago would undo a fence. */
	CHECK_EQ(p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].written_at, PCI_STATUS);
	/* The same again changes nothing. */
	pb_cfg_write(&p, PCI_COMMAND, 2, 4);
	CHECK_STR(fake_journal(p.base.fake), "");
	pb_done(&p);
}

static void bars_sized_and_moved(void)
{
	char expected[160];
	uint64_t at;

	pb_init(&p);
	fake_pci_bar(p.fake, 0, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, MIB(2), FAKE_REGION_RWM);
	fake_pci_bar(p.fake, 2, 0, KIB(4), FAKE_REGION_RWM);
	fake_pci_bar(p.fake, 3, PCI_BASE_ADDRESS_SPACE_IO, 32, FAKE_REGION_RW);
	pb_start(&p);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_BASE_ADDRESS_2, 4), 0xfffff000);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_3, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_BASE_ADDRESS_3, 4), 0xffffffe1);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_5, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_BASE_ADDRESS_5, 4), 0);
	at = pb_bar(&p, 0);
	CHECK(at >= RIG_MEM64);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_BASE_ADDRESS_0, 4), 0xffe0000c);
	CHECK_EQ(pb_cfg(&p, PCI_BASE_ADDRESS_1, 4), 0xffffffff);
	/* The device keeps its own addresses. */
	CHECK_EQ(get_le32(p.fake->config + PCI_BASE_ADDRESS_2), 0xabc00000);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_2, 4, 0xc1000000);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_0, 4, 0x40000000);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_1, 4, 2);
	fake_journal(p.base.fake);
	pb_cfg_write(&p, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	CHECK_STR(fake_journal(p.base.fake), "command 2, map 240000000, size 200000, map c1000000, size 1000");
	/* Moved while it is decoded: away first. */
	pb_cfg_write(&p, PCI_BASE_ADDRESS_2, 4, 0xc2000000);
	snprintf(expected, sizeof(expected), "unmap c1000000, map c2000000, size 1000");
	CHECK_STR(fake_journal(p.base.fake), expected);
	/* To where no BAR can be, and back. */
	pb_cfg_write(&p, PCI_BASE_ADDRESS_2, 4, 0x1000);
	CHECK_STR(fake_journal(p.base.fake), "unmap c2000000");
	pb_cfg_write(&p, PCI_BASE_ADDRESS_2, 4, 0xc2000000);
	CHECK_STR(fake_journal(p.base.fake), "map c2000000, size 1000");
	pb_done(&p);
}

static void no_power_of_two(void)
{
	pb_init(&p);
	fake_pci_bar(p.fake, 0, 0, KIB(12), FAKE_REGION_RW);
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EINVAL);
	CHECK_HAS(p.base.err.text, "BAR 0 has 12288 bytes");
	/* The upper half of a BAR of 64 bits is none of its own, whatever a driver says. */
	fake_pci_bar(p.fake, 0, PCI_BASE_ADDRESS_MEM_TYPE_64, KIB(16), FAKE_REGION_RW);
	fake_pci_bar(p.fake, 1, 0, KIB(4), FAKE_REGION_RW);
	pb_start(&p);
	pb_cfg_write(&p, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	CHECK_EQ(pb_cfg(&p, PCI_BASE_ADDRESS_1, 4), 0xffffffff);
	pb_done(&p);
}

/* A read that fails is one of a device that is not there. */
static void reads_fail(void)
{
	pb_init(&p);
	fake_pci_cap(p.fake, 0x40, PCI_CAP_ID_PM);
	pb_start(&p);
	p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].refuse = -EIO;
	CHECK_EQ(pb_cfg(&p, 0x44, 4), 0xffffffff);
	CHECK_EQ(pb_cfg(&p, 0x40, 2), PCI_CAP_ID_PM);
	pb_cfg_write(&p, 0x44, 4, 3);
	pb_done(&p);
	pb_init(&p);
	p.fake->regions[VFIO_PCI_CONFIG_REGION_INDEX].refuse = -EIO;
	CHECK_EQ(pb_create(&p, VFIO_WANT_IOMMUFD), -EIO);
	CHECK_HAS(p.base.err.text, "read its config space");
	pb_done(&p);
}

TEST_MAIN(TEST(identity), TEST(chain_filtered), TEST(first_and_last_hidden), TEST(broken_chains), TEST(out_of_range),
	  TEST(extended_filtered), TEST(express), TEST(bridges), TEST(small_config_space), TEST(command_order),
	  TEST(bars_sized_and_moved), TEST(no_power_of_two), TEST(reads_fail))
