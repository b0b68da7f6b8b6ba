/* SPDX-License-Identifier: Apache-2.0 */
/* devices/pci: config space, BARs of every kind, what a guest can do to them, slots, lines, reset. */
#include "devices/pci.h"
#include "tests/unit/test.h"

#define ECAM 0xe0000000ull
#define MEM32 0xc0000000ull
#define MEM64 0x200000000ull

/* ---- a machine's worth of surroundings; one test uses one rig ---- */

struct line {
	struct irq_line line;
	bool high;
};

struct rig {
	struct bus *mmio, *pio;
	struct pci_bus *bus;
	struct line lines[8];
	unsigned int line_count, lines_freed;
	int fail_line;
};

static void line_set(struct irq_line *line, bool level)
{
	container_of(line, struct line, line)->high = level;
}

static const struct irq_line_ops line_ops = {.set = line_set};

static int line_create(void *opaque, unsigned int root_pin, struct irq_line **ret, struct err *err)
{
	struct rig *rig = opaque;
	struct line *line = &rig->lines[rig->line_count];

	if (rig->fail_line)
		return err_set(err, rig->fail_line, "no line");
	rig->line_count++;
	line->line = (struct irq_line){.ops = &line_ops, .gsi = 16 + root_pin};
	*ret = &line->line;
	return 0;
}

static void line_destroy(void *opaque, struct irq_line *line)
{
	((struct rig *)opaque)->lines_freed++;
}

static const struct pci_intx_ops intx_ops = {line_create, line_destroy};

static void rig_open(struct rig *rig)
{
	struct pci_bus_config config = {
		.windows = {.ecam = ECAM, .mem32 = MEM32, .mem32_size = 0x20000000, .mem64 = MEM64,
			    .mem64_size = GIB(64), .io = 0x1000, .io_size = 0xf000},
		.intx = &intx_ops,
		.intx_opaque = rig,
	};

	*rig = (struct rig){.mmio = bus_create(), .pio = bus_create()};
	config.mmio = rig->mmio;
	config.pio = rig->pio;
	CHECK_EQ(pci_bus_create(&config, &rig->bus, NULL), 0);
}

static void rig_close(struct rig *rig)
{
	pci_bus_destroy(rig->bus);
	bus_destroy(rig->mmio);
	bus_destroy(rig->pio);
}

static uint32_t cfg(struct rig *rig, unsigned int devfn, unsigned int offset, unsigned int len)
{
	uint8_t data[8] = {0};

	CHECK(bus_read(rig->mmio, ECAM + devfn * 4096 + offset, data, len));
	return get_le32(data);
}

static void cfg_write(struct rig *rig, unsigned int devfn, unsigned int offset, unsigned int len, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	CHECK(bus_write(rig->mmio, ECAM + devfn * 4096 + offset, data, len));
}

/* A device that notes what happens to it. */
struct device {
	struct pci_function function;
	uint64_t at[PCI_BARS]; /* as bar_moved told */
	unsigned int moves, masters, written_offset, written_len;
	bool master;
	uint8_t reg;
};

static void dev_bar_moved(struct pci_function *function, unsigned int bar, uint64_t old)
{
	struct device *device = container_of(function, struct device, function);

	CHECK(device->at[bar] == old && (old == PCI_UNMAPPED) != (function->bars[bar].addr == PCI_UNMAPPED));
	device->at[bar] = function->bars[bar].addr;
	device->moves++;
}

static void dev_master(struct pci_function *function, bool on)
{
	struct device *device = container_of(function, struct device, function);

	device->master = on;
	device->masters++;
}

static void dev_written(struct pci_function *function, unsigned int offset, unsigned int len)
{
	container_of(function, struct device, function)->written_offset = offset;
	container_of(function, struct device, function)->written_len = len;
}

/* Does not like the first 3 GiB of the 64-bit window, and all of the 32-bit one above the first 64 KiB. */
static uint64_t dev_avoid(struct pci_function *function, uint64_t addr, uint64_t size)
{
	if (ranges_overlap(addr, size, MEM64, GIB(3)))
		return MEM64 + GIB(3) - 1;
	return ranges_overlap(addr, size, MEM32 + KIB(64), GIB(4) - MEM32 - KIB(64)) ? GIB(4) - 1 : 0;
}

static const struct pci_function_ops avoiding_ops = {.avoid = dev_avoid};

static const struct pci_function_ops dev_ops = {
	.config_written = dev_written, .bar_moved = dev_bar_moved, .bus_master = dev_master};

static void reg_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	memset(data, ((struct device *)opaque)->reg + (uint8_t)offset, len);
}

static void reg_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	((struct device *)opaque)->reg = *(const uint8_t *)data;
}

static const struct bus_ops reg_ops = {reg_read, reg_write};

static void dev_init(struct device *device, const char *name)
{
	*device = (struct device){0};
	for (unsigned int i = 0; i < PCI_BARS; i++)
		device->at[i] = PCI_UNMAPPED;
	pci_function_init(&device->function, &dev_ops, name, 0x1af4, 0x1042, 0x018000, 1);
}

/* Every kind of BAR at once. */
static void dev_init_bars(struct device *device)
{
	dev_init(device, "all");
	CHECK_EQ(pci_set_bar(&device->function, 0, PCI_BAR_MEM32, false, 16, &reg_ops, device), 0);
	CHECK_EQ(pci_set_bar(&device->function, 1, PCI_BAR_IO, false, 32, &reg_ops, device), 0);
	CHECK_EQ(pci_set_bar(&device->function, 2, PCI_BAR_MEM64, true, GIB(8), &reg_ops, device), 0);
	CHECK_EQ(pci_set_bar(&device->function, 4, PCI_BAR_MEM64, false, KIB(16), &reg_ops, device), 0);
	CHECK_EQ(pci_set_bar(&device->function, PCI_ROM_BAR, PCI_BAR_MEM32, false, KIB(64), &reg_ops, device), 0);
}

static bool answers(struct bus *bus, uint64_t addr)
{
	uint8_t byte;

	return bus_read(bus, addr, &byte, 1);
}

/* ---- tests ---- */

static void powers_on_as_written_down(void)
{
	static const struct {
		unsigned int offset, len;
		uint32_t value;
	} expected[] = {
		{PCI_VENDOR_ID, 4, 0x10421af4}, {PCI_COMMAND, 4, 0},        {PCI_CLASS_REVISION, 4, 0x01800001},
		{PCI_HEADER_TYPE, 1, 0},        {PCI_INTERRUPT_PIN, 1, 1},  {PCI_SUBSYSTEM_VENDOR_ID, 4, 0x00020001},
		{PCI_CAPABILITY_LIST, 1, 0},    {0x100, 4, 0},              {0xffc, 4, 0},
		{PCI_VENDOR_ID + 1, 2, 0x421a}, {PCI_VENDOR_ID + 3, 1, 0x10},
	};
	struct rig rig;
	struct device device;

	rig_open(&rig);
	CHECK_EQ(cfg(&rig, 0, PCI_CLASS_DEVICE, 2), 0x0600);
	dev_init(&device, "x");
	pci_set_subsystem(&device.function, 1, 2);
	pci_set_pin(&device.function, 1);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	CHECK_EQ(device.function.devfn, PCI_DEVFN(1, 0));
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		CHECK_EQ(cfg(&rig, 8, expected[i].offset, expected[i].len), expected[i].value);
	CHECK_EQ(cfg(&rig, 16, 0, 4), 0xffffffff);
	pci_bus_remove(&device.function);
	CHECK_EQ(cfg(&rig, 8, 0, 4), 0xffffffff);
	rig_close(&rig);
}

static void takes_any_access(void)
{
	struct rig rig;
	struct device device;
	uint8_t whole[4096], part[8], ones[8];

	rig_open(&rig);
	dev_init_bars(&device);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	for (unsigned int i = 0; i < sizeof(whole); i++)
		whole[i] = (uint8_t)cfg(&rig, 8, i, 1);
	for (unsigned int len = 1; len <= 8; len *= 2)
		for (unsigned int offset = 0; offset + len <= sizeof(whole); offset++) {
			CHECK(bus_read(rig.mmio, ECAM + 8 * 4096 + offset, part, len));
			CHECK_EQ(memcmp(part, whole + offset, len), 0);
		}
	/* across into the next function, which is not there, and at the very end of ECAM */
	CHECK(bus_read(rig.mmio, ECAM + 9 * 4096 - 3, part, 8));
	CHECK_EQ(memcmp(part + 3, "\xff\xff\xff\xff\xff", 5), 0);
	CHECK(bus_read(rig.mmio, ECAM + 0xfffff, part, 1));
	CHECK(!bus_read(rig.mmio, ECAM + 0x100000, part, 1));
	memset(ones, 0xff, sizeof(ones));
	for (unsigned int len = 1; len <= 8; len *= 2)
		for (unsigned int offset = 0; offset < 0x2000; offset += 3)
			bus_write(rig.mmio, ECAM + 8 * 4096 + offset, ones, len);
	/* a write touches nothing but what is writable */
	CHECK_EQ(cfg(&rig, 8, PCI_VENDOR_ID, 4), 0x10421af4);
	CHECK_EQ(cfg(&rig, 8, PCI_COMMAND, 2), 0x547);
	CHECK_EQ(cfg(&rig, 8, PCI_STATUS, 2), 0);
	pci_bus_remove(&device.function);
	rig_close(&rig);
}

static void sizes_every_kind_of_bar(void)
{
	static const struct {
		unsigned int reg;
		uint32_t ones;
	} expected[] = {
		{0x10, 0xfffffff0}, {0x14, 0xffffffe1}, {0x18, 0x0000000c}, {0x1c, 0xfffffffe},
		{0x20, 0xffffc004}, {0x24, 0xffffffff}, {0x30, 0xffff0000},
	};
	struct rig rig;
	struct device device;

	rig_open(&rig);
	dev_init_bars(&device);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		uint32_t before = cfg(&rig, 8, expected[i].reg, 4);

		cfg_write(&rig, 8, expected[i].reg, 4, expected[i].reg == 0x30 ? 0xfffff800 : 0xffffffff);
		CHECK_EQ(cfg(&rig, 8, expected[i].reg, 4), expected[i].ones);
		/* and a byte at a time */
		cfg_write(&rig, 8, expected[i].reg, 4, 0);
		for (unsigned int byte = expected[i].reg == 0x30; byte < 4; byte++)
			cfg_write(&rig, 8, expected[i].reg + byte, 1, 0xff);
		CHECK_EQ(cfg(&rig, 8, expected[i].reg, 4), expected[i].ones);
		cfg_write(&rig, 8, expected[i].reg, 4, before);
		CHECK_EQ(cfg(&rig, 8, expected[i].reg, 4), before);
	}
	pci_bus_remove(&device.function);
	rig_close(&rig);
}

static void refuses_impossible_bars(void)
{
	struct device device;
	static const struct {
		unsigned int bar;
		enum pci_bar_kind kind;
		uint64_t size;
	} bad[] = {
		{7, PCI_BAR_MEM32, 4096},       {0, PCI_BAR_NONE, 4096},         {5, PCI_BAR_MEM64, 4096},
		{6, PCI_BAR_MEM64, 4096},       {6, PCI_BAR_IO, 4096},           {0, PCI_BAR_MEM32, 4095},
		{0, PCI_BAR_MEM32, 8},          {0, PCI_BAR_MEM32, 0},           {0, PCI_BAR_MEM32, 1ull << 32},
		{0, PCI_BAR_IO, 1 << 17},       {0, PCI_BAR_IO, 2},              {6, PCI_BAR_MEM32, 1024},
		{0, PCI_BAR_MEM64, 1ull << 63}, {0, (enum pci_bar_kind)9, 4096},
	};

	dev_init(&device, "bad");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(pci_set_bar(&device.function, bad[i].bar, bad[i].kind, false, bad[i].size, NULL, NULL),
			 -EINVAL);
}

static void places_bars_in_their_windows(void)
{
	struct rig rig;
	struct device a, b;

	rig_open(&rig);
	dev_init_bars(&a);
	dev_init_bars(&b);
	CHECK_EQ(pci_bus_add(rig.bus, &a.function, -1, NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &b.function, -1, NULL), 0);
	CHECK_EQ(a.function.bars[0].home, MEM32);
	CHECK_EQ(cfg(&rig, 8, 0x10, 4), MEM32);
	CHECK_EQ(a.function.bars[1].home, 0x1000);
	CHECK_EQ(cfg(&rig, 8, 0x14, 4), 0x1001);
	CHECK_EQ(a.function.bars[2].home, MEM64);
	CHECK_EQ(cfg(&rig, 8, 0x18, 4), 0xc);
	CHECK_EQ(cfg(&rig, 8, 0x1c, 4), 2);
	CHECK_EQ(a.function.bars[4].home, MEM32 + KIB(16)); /* not in the first one's page, aligned to its size */
	CHECK_EQ(b.function.bars[2].home, MEM64 + GIB(8));
	CHECK_EQ(b.function.bars[1].home, 0x1020);
	CHECK(!answers(rig.mmio, MEM32));
	/* what the guest has moved is not given to another */
	cfg_write(&rig, 8, 0x1c, 4, 8);
	pci_bus_remove(&b.function);
	CHECK_EQ(pci_set_bar(&b.function, 2, PCI_BAR_MEM64, true, GIB(32), NULL, NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &b.function, -1, NULL), -ENOSPC);
	CHECK(!b.function.bus && !pci_bus_function(rig.bus, 16));
	cfg_write(&rig, 8, 0x1c, 4, 2);
	CHECK_EQ(pci_bus_add(rig.bus, &b.function, -1, NULL), 0);
	CHECK_EQ(b.function.bars[2].home, GIB(32));
	pci_bus_remove(&a.function);
	pci_bus_remove(&b.function);
	rig_close(&rig);
}

/* ... if there is room elsewhere. */
static void avoids_where_a_function_wants_no_bars(void)
{
	struct rig rig;
	struct device a;

	rig_open(&rig);
	dev_init(&a, "avoiding");
	a.function.ops = &avoiding_ops;
	CHECK_EQ(pci_set_bar(&a.function, 0, PCI_BAR_MEM64, true, GIB(1), NULL, NULL), 0);
	CHECK_EQ(pci_set_bar(&a.function, 2, PCI_BAR_MEM64, true, GIB(2), NULL, NULL), 0);
	CHECK_EQ(pci_set_bar(&a.function, 4, PCI_BAR_MEM32, false, KIB(64), NULL, NULL), 0);
	CHECK_EQ(pci_set_bar(&a.function, 5, PCI_BAR_MEM32, false, KIB(64), NULL, NULL), 0);
	CHECK_EQ(pci_set_bar(&a.function, PCI_ROM_BAR, PCI_BAR_MEM32, false, KIB(2), NULL, NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &a.function, -1, NULL), 0);
	CHECK_EQ(a.function.bars[0].home, MEM64 + GIB(3));
	CHECK_EQ(a.function.bars[2].home, MEM64 + GIB(4));
	CHECK_EQ(a.function.bars[4].home, MEM32);
	CHECK_EQ(a.function.bars[5].home, MEM32 + KIB(64));
	pci_bus_remove(&a.function);
	rig_close(&rig);
}

static void plugs_and_unplugs_for_ever(void)
{
	struct rig rig;
	struct device device;
	uint64_t home = 0;

	rig_open(&rig);
	for (unsigned int i = 0; i < 2000; i++) {
		dev_init_bars(&device);
		CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
		cfg_write(&rig, 8, PCI_COMMAND, 2, 7);
		CHECK(answers(rig.mmio, device.function.bars[2].home));
		CHECK(i == 0 || home == device.function.bars[2].home);
		home = device.function.bars[2].home;
		pci_bus_remove(&device.function);
		CHECK_EQ(device.at[2], PCI_UNMAPPED);
		CHECK(!answers(rig.mmio, home));
	}
	rig_close(&rig);
}

static void decodes_what_the_command_register_says(void)
{
	struct rig rig;
	struct device device;
	uint8_t byte = 0x5a;

	rig_open(&rig);
	dev_init_bars(&device);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	cfg_write(&rig, 8, PCI_COMMAND, 2, PCI_COMMAND_IO);
	CHECK(answers(rig.pio, 0x1000) && answers(rig.pio, 0x101f) && !answers(rig.pio, 0x1020));
	CHECK(!answers(rig.mmio, MEM32));
	cfg_write(&rig, 8, PCI_COMMAND, 1, PCI_COMMAND_MEMORY);
	CHECK(!answers(rig.pio, 0x1000) && answers(rig.mmio, MEM32) && answers(rig.mmio, MEM64 + GIB(8) - 1));
	CHECK(!pci_bus_master_enabled(&device.function));
	CHECK_EQ(device.at[PCI_ROM_BAR], PCI_UNMAPPED);
	cfg_write(&rig, 8, PCI_ROM_ADDRESS, 4, cfg(&rig, 8, PCI_ROM_ADDRESS, 4) | 1);
	CHECK_EQ(device.at[PCI_ROM_BAR], device.function.bars[PCI_ROM_BAR].home);
	CHECK(answers(rig.mmio, device.at[PCI_ROM_BAR]));
	CHECK(bus_write(rig.mmio, MEM32, &byte, 1));
	CHECK_EQ(device.reg, 0x5a);
	cfg_write(&rig, 8, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	CHECK(device.master && device.masters == 1);
	CHECK(!answers(rig.mmio, MEM32) && !answers(rig.mmio, MEM64));
	CHECK_EQ(device.at[PCI_ROM_BAR], PCI_UNMAPPED);
	CHECK_EQ(device.written_offset, PCI_COMMAND);
	CHECK_EQ(device.written_len, 2);
	pci_bus_remove(&device.function);
	CHECK(!device.master);
	rig_close(&rig);
}

static void moves_bars(void)
{
	struct rig rig;
	struct device device;

	rig_open(&rig);
	dev_init_bars(&device);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	cfg_write(&rig, 8, PCI_COMMAND, 2, 3);
	/* 64 bits in two halves while decoded */
	cfg_write(&rig, 8, 0x24, 4, 0xa);
	CHECK_EQ(device.at[4], 0xa00000000ull + MEM32 + KIB(16));
	cfg_write(&rig, 8, 0x20, 4, 0x10000000);
	CHECK_EQ(device.at[4], 0xa10000000ull);
	CHECK(answers(rig.mmio, 0xa10003fffull) && !answers(rig.mmio, 0xa10004000ull));
	/* unaligned addresses lose their low bits */
	cfg_write(&rig, 8, 0x20, 4, 0x10007fff);
	CHECK_EQ(device.at[4], 0xa10004000ull);
	cfg_write(&rig, 8, 0x14, 4, 0x2000);
	CHECK(answers(rig.pio, 0x201f) && !answers(rig.pio, 0x1000));
	pci_bus_remove(&device.function);
	rig_close(&rig);
}

static void ignores_bars_where_they_cannot_be(void)
{
	static const struct {
		unsigned int reg;
		uint32_t value;
	} bad[] = {
		{0x10, 0},          {0x10, 0x1000},     {0x10, 0xe0000000}, {0x10, 0xe0008000}, {0x10, 0xfee00000},
		{0x10, 0xfffffff0}, {0x10, 0xbfffffff}, {0x14, 0x3f8},      {0x14, 0xffffffff}, {0x14, 0x10000},
		{0x1c, 0},          {0x1c, 0xffffffff}, {0x1c, 0x12},       {0x24, 0x12},
	};
	struct rig rig;
	struct device device;

	rig_open(&rig);
	dev_init_bars(&device);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	cfg_write(&rig, 8, PCI_COMMAND, 2, 3);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		unsigned int bar = (bad[i].reg - 0x10) / 4 - (bad[i].reg == 0x1c || bad[i].reg == 0x24);
		uint32_t before = cfg(&rig, 8, bad[i].reg, 4);

		cfg_write(&rig, 8, bad[i].reg, 4, bad[i].value);
		CHECK_EQ(device.at[bar], PCI_UNMAPPED);
		CHECK_EQ(cfg(&rig, 8, 0, 4), 0x10421af4);
		cfg_write(&rig, 8, bad[i].reg, 4, before);
		CHECK_EQ(device.at[bar], device.function.bars[bar].home);
	}
	pci_bus_remove(&device.function);
	rig_close(&rig);
}

static void bars_in_each_others_way(void)
{
	struct rig rig;
	struct device a, b;
	uint8_t byte;

	rig_open(&rig);
	dev_init(&a, "a");
	dev_init(&b, "b");
	CHECK_EQ(pci_set_bar(&a.function, 0, PCI_BAR_MEM32, false, 4096, &reg_ops, &a), 0);
	CHECK_EQ(pci_set_bar(&b.function, 0, PCI_BAR_MEM32, false, 8192, NULL, NULL), 0); /* bar_moved does it all */
	a.reg = 0x11;
	CHECK_EQ(pci_bus_add(rig.bus, &a.function, -1, NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &b.function, -1, NULL), 0);
	cfg_write(&rig, 8, PCI_COMMAND, 2, 2);
	cfg_write(&rig, 16, PCI_COMMAND, 2, 2);
	/* who was there first stays; the other waits, and goes there when the place is free */
	cfg_write(&rig, 16, 0x10, 4, MEM32);
	CHECK_EQ(a.at[0], MEM32);
	CHECK_EQ(b.at[0], PCI_UNMAPPED);
	CHECK(bus_read(rig.mmio, MEM32, &byte, 1) && byte == 0x11);
	cfg_write(&rig, 8, 0x10, 4, MEM32 + 0x10000);
	CHECK_EQ(a.at[0], MEM32 + 0x10000);
	CHECK_EQ(b.at[0], MEM32);
	cfg_write(&rig, 8, 0x10, 4, MEM32 + 4096);
	CHECK_EQ(a.at[0], PCI_UNMAPPED);
	pci_bus_remove(&b.function);
	CHECK_EQ(a.at[0], MEM32 + 4096);
	/* so it is with a range that is not a BAR */
	CHECK_EQ(bus_add(rig.mmio, MEM32 + 0x20000, 16, &reg_ops, &a, "other", NULL), 0);
	cfg_write(&rig, 8, 0x10, 4, MEM32 + 0x20000);
	CHECK_EQ(a.at[0], PCI_UNMAPPED);
	cfg_write(&rig, 8, 0x10, 4, MEM32 + 0x30000);
	CHECK_EQ(a.at[0], MEM32 + 0x30000);
	pci_bus_remove(&a.function);
	rig_close(&rig);
}

static void chains_capabilities(void)
{
	struct rig rig;
	struct device device;
	unsigned int count = 0, cap;

	rig_open(&rig);
	dev_init(&device, "caps");
	CHECK_EQ(pci_add_capability(&device.function, PCI_CAP_ID_VNDR, 1), -ENOSPC);
	CHECK_EQ(pci_add_capability(&device.function, PCI_CAP_ID_VNDR, 13), 0x40);
	CHECK_EQ(pci_add_capability(&device.function, PCI_CAP_ID_MSIX, 12), 0x50);
	while (pci_add_capability(&device.function, PCI_CAP_ID_VNDR, 60) > 0)
		;
	CHECK_EQ(pci_add_capability(&device.function, PCI_CAP_ID_VNDR, 44), 0xd4);
	CHECK_EQ(pci_add_capability(&device.function, PCI_CAP_ID_VNDR, 2), -ENOSPC);
	CHECK_EQ(pci_bus_add(rig.bus, &device.function, -1, NULL), 0);
	CHECK_EQ(cfg(&rig, 8, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	for (cap = cfg(&rig, 8, PCI_CAPABILITY_LIST, 1); cap; cap = cfg(&rig, 8, cap + 1, 1)) {
		CHECK_EQ(cfg(&rig, 8, cap, 1), cap == 0x50 ? PCI_CAP_ID_MSIX : PCI_CAP_ID_VNDR);
		count++;
	}
	CHECK_EQ(count, 5);
	pci_bus_remove(&device.function);
	rig_close(&rig);
}

static void fills_slots(void)
{
	struct rig rig;
	static struct device devices[34];
	struct err err;

	rig_open(&rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(devices); i++)
		dev_init(&devices[i], "slot");
	CHECK_EQ(pci_bus_add(rig.bus, &devices[32].function, 0, &err), -EBUSY);
	CHECK_STR(err.text, "slot: PCI slot 00.0 is taken by host bridge");
	CHECK_EQ(pci_bus_add(rig.bus, &devices[32].function, 256, &err), -EINVAL);
	/* a device of which only function 3 is there does not answer, but its slot is taken */
	CHECK_EQ(pci_bus_add(rig.bus, &devices[32].function, PCI_DEVFN(1, 3), NULL), 0);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(1, 3), 0, 4), 0xffffffff);
	cfg_write(&rig, PCI_DEVFN(1, 3), PCI_COMMAND, 2, 7);
	CHECK_EQ(devices[32].masters, 0);
	for (unsigned int i = 2; i < 32; i++) {
		CHECK_EQ(pci_bus_add(rig.bus, &devices[i].function, -1, NULL), 0);
		CHECK_EQ(devices[i].function.devfn, PCI_DEVFN(i, 0));
	}
	CHECK_EQ(pci_bus_add(rig.bus, &devices[33].function, -1, &err), -ENOSPC);
	CHECK_EQ(pci_bus_add(rig.bus, &devices[33].function, PCI_DEVFN(1, 0), NULL), 0);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(1, 3), 0, 4), 0x10421af4);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(1, 0), PCI_CACHE_LINE_SIZE, 4), 0x800000);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(1, 0), PCI_HEADER_TYPE, 1), 0x80);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(1, 3), PCI_HEADER_TYPE, 1), 0);
	pci_bus_remove(&devices[32].function);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(1, 0), PCI_HEADER_TYPE, 1), 0);
	pci_bus_remove(&devices[32].function); /* twice is once */
	for (unsigned int i = 0; i < ARRAY_SIZE(devices); i++)
		pci_bus_remove(&devices[i].function);
	rig_close(&rig);
}

static void drives_lines(void)
{
	struct rig rig;
	struct device a, b, none;

	rig_open(&rig);
	dev_init(&a, "a");
	dev_init(&b, "b");
	dev_init(&none, "none");
	pci_set_pin(&a.function, 1);
	pci_set_pin(&b.function, 4);
	CHECK_EQ(pci_bus_add(rig.bus, &a.function, PCI_DEVFN(5, 0), NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &b.function, PCI_DEVFN(6, 0), NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &none.function, -1, NULL), 0);
	/* two functions on one GSI have a line each */
	CHECK_EQ(rig.line_count, 2);
	CHECK(a.function.intx == &rig.lines[0].line && b.function.intx == &rig.lines[1].line && !none.function.intx);
	CHECK_EQ(rig.lines[0].line.gsi, 17);
	CHECK_EQ(rig.lines[1].line.gsi, 17);
	pci_set_intx(&none.function, true);
	pci_set_intx(&a.function, true);
	CHECK(rig.lines[0].high && !rig.lines[1].high);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(5, 0), PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(5, 0), PCI_COMMAND, 4), PCI_STATUS_INTERRUPT << 16);
	/* disabled: the line is low, the status bit stays; enabled again: the level is still there */
	cfg_write(&rig, PCI_DEVFN(5, 0), PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	CHECK(!rig.lines[0].high);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(5, 0), PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
	cfg_write(&rig, PCI_DEVFN(5, 0), PCI_COMMAND, 2, 0);
	CHECK(rig.lines[0].high);
	pci_set_intx(&a.function, false);
	CHECK(!rig.lines[0].high);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(5, 0), PCI_STATUS, 2), 0);
	pci_set_intx(&b.function, true);
	pci_bus_remove(&b.function);
	CHECK(!rig.lines[1].high && rig.lines_freed == 1);
	pci_set_intx(&b.function, true); /* off the bus: nothing */
	CHECK(!rig.lines[1].high);
	/* a line that cannot be had leaves nothing behind */
	rig.fail_line = -EMFILE;
	CHECK_EQ(pci_bus_add(rig.bus, &b.function, PCI_DEVFN(6, 0), NULL), -EMFILE);
	CHECK_EQ(cfg(&rig, PCI_DEVFN(6, 0), 0, 4), 0xffffffff);
	pci_bus_remove(&a.function);
	pci_bus_remove(&none.function);
	rig_close(&rig);
}

/* A function that answers for itself, as a passed-through one does. */
static void own_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len)
{
	CHECK((len == 1 || len == 2 || len == 4) && offset % len == 0 && offset + len <= PCI_CONFIG_SIZE);
	pci_config_read(function, offset, data, len);
	if (offset >= 0x100)
		memset(data, 0xab, len);
}

static void own_write(struct pci_function *function, unsigned int offset, const void *data, unsigned int len)
{
	CHECK((len == 1 || len == 2 || len == 4) && offset % len == 0 && offset + len <= PCI_CONFIG_SIZE);
	if (offset < 0x40)
		pci_config_write(function, offset, data, len);
}

static void lets_functions_answer_themselves(void)
{
	static const struct pci_function_ops ops = {.config_read = own_read, .config_write = own_write};
	struct rig rig;
	struct pci_function function = {0};
	uint8_t data[8];

	rig_open(&rig);
	pci_function_init(&function, &ops, "own", 1, 2, 3, 4);
	CHECK_EQ(pci_set_bar(&function, 0, PCI_BAR_MEM32, false, 4096, NULL, NULL), 0);
	CHECK_EQ(pci_bus_add(rig.bus, &function, -1, NULL), 0);
	for (unsigned int offset = 0xfd; offset < 0x108; offset++)
		CHECK(bus_read(rig.mmio, ECAM + 8 * 4096 + offset, data, 8));
	CHECK_EQ(cfg(&rig, 8, 0x101, 4), 0xabababab);
	cfg_write(&rig, 8, 0x3d, 4, 0);
	cfg_write(&rig, 8, PCI_COMMAND, 1, 2);
	CHECK_EQ(function.bars[0].addr, MEM32);
	pci_bus_remove(&function);
	rig_close(&rig);
}

static void needs_its_window(void)
{
	struct bus *mmio = bus_create(), *pio = bus_create();
	struct pci_bus_config config = {.windows = {.ecam = ECAM}, .mmio = mmio, .pio = pio};
	struct pci_bus *bus;
	struct device device;

	CHECK_EQ(bus_add(mmio, ECAM + 4096, 4096, &reg_ops, &device, "squatter", NULL), 0);
	CHECK_EQ(pci_bus_create(&config, &bus, NULL), -EEXIST);
	bus_remove(mmio, ECAM + 4096);
	CHECK_EQ(pci_bus_create(&config, &bus, NULL), 0);
	dev_init_bars(&device);
	CHECK_EQ(pci_bus_add(bus, &device.function, -1, NULL), -ENOSPC);
	pci_bus_destroy(bus);
	pci_bus_destroy(NULL);
	bus_destroy(mmio);
	bus_destroy(pio);
}

TEST_MAIN(TEST(powers_on_as_written_down), TEST(takes_any_access), TEST(sizes_every_kind_of_bar),
	  TEST(refuses_impossible_bars), TEST(places_bars_in_their_windows), TEST(avoids_where_a_function_wants_no_bars),
	  TEST(plugs_and_unplugs_for_ever),
	  TEST(decodes_what_the_command_register_says), TEST(moves_bars), TEST(ignores_bars_where_they_cannot_be),
	  TEST(bars_in_each_others_way), TEST(chains_capabilities), TEST(fills_slots), TEST(drives_lines),
	  TEST(lets_functions_answer_themselves), TEST(needs_its_window))
