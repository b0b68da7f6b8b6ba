/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI bus driven by nonsense. An input is a list of actions: config accesses of any size anywhere in ECAM, BAR
 * registers pointed at windows, RAM, ECAM and each other, accesses to what BARs lead to, MSI-X tables and kicks,
 * functions that come and go, resets. Always: decoded BARs lie in the windows, apart from each other, and answer;
 * devices have been told where they are; a message vector is connected exactly when the guest's bits say so.
 */
#include "devices/msix.h"
#include "tests/fuzz/fuzz.h"

#include <sys/eventfd.h>

#define ECAM 0xe0000000ull
#define MEM32 0xc0000000ull
#define MEM32_SIZE 0x20000000ull
#define MEM64 0x200000000ull
#define MEM64_SIZE 0x400000000ull
#define IO 0x1000ull
#define IO_SIZE 0xf000ull
#define DEVICES 6
#define VECTORS 70
#define BAD_MESSAGE 0xbadu /* one that the controller refuses */
#define ACTIONS 400

struct recorded {
	struct msi_vector vector;
	bool connected;
};

struct device {
	struct pci_function function;
	struct msix *msix;
	struct irq_line line;
	bool plugged, high;
	uint64_t at[PCI_BARS];
	struct recorded *vectors[VECTORS]; /* those that came into use */
	bool kicked[VECTORS];              /* and not delivered */
};

struct rig {
	struct bus *mmio, *pio;
	struct recorded *by_fd[1024];
	struct pci_bus *bus;
	struct msi_controller msi;
	struct device devices[DEVICES];
	struct device *plugging; /* now */
	struct device *answered; /* whose BAR was accessed last */
};

static struct rig *rig;

/* ---- what the devices stand on ---- */

static int rec_create(struct msi_controller *msi, struct msi_vector **ret, struct err *err)
{
	struct recorded *v = calloc(1, sizeof(*v));

	v->vector.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	MUST(v->vector.fd >= 0 && v->vector.fd < (int)ARRAY_SIZE(rig->by_fd));
	rig->by_fd[v->vector.fd] = v;
	*ret = &v->vector;
	return 0;
}

static void rec_destroy(struct msi_controller *msi, struct msi_vector *vector)
{
	struct recorded *v = container_of(vector, struct recorded, vector);

	MUST(!v->connected);
	close(v->vector.fd);
	free(v);
}

static int rec_connect(struct msi_controller *msi, struct msi_vector *vector, const struct msi_message *message,
		       struct err *err)
{
	struct recorded *v = container_of(vector, struct recorded, vector);

	v->connected = message->data != BAD_MESSAGE;
	return v->connected ? 0 : -EINVAL;
}

static void rec_disconnect(struct msi_controller *msi, struct msi_vector *vector)
{
	container_of(vector, struct recorded, vector)->connected = false;
}

static const struct msi_controller_ops rec_ops = {rec_create, rec_destroy, rec_connect, rec_disconnect};

static void set_line(struct irq_line *line, bool level)
{
	container_of(line, struct device, line)->high = level;
}

static const struct irq_line_ops line_ops = {.set = set_line};

static int line_create(void *opaque, unsigned int root_pin, struct irq_line **ret, struct err *err)
{
	rig->plugging->line = (struct irq_line){.ops = &line_ops};
	*ret = &rig->plugging->line;
	return 0;
}

static void line_destroy(void *opaque, struct irq_line *line)
{
	MUST(!container_of(line, struct device, line)->high);
}

static const struct pci_intx_ops intx_ops = {line_create, line_destroy};

/* ---- the devices ---- */

static void bar_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct device *device = opaque;

	rig->answered = device;
	if (offset < 0x800)
		msix_table_read(device->msix, offset, data, len);
	else
		msix_pba_read(device->msix, offset - 0x800, data, len);
}

static void bar_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct device *device = opaque;

	rig->answered = device;
	if (offset < 0x800)
		msix_table_write(device->msix, offset, data, len);
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

static void moved(struct pci_function *function, unsigned int bar, uint64_t old)
{
	struct device *device = container_of(function, struct device, function);

	MUST(device->at[bar] == old && (old == PCI_UNMAPPED) != (function->bars[bar].addr == PCI_UNMAPPED));
	device->at[bar] = function->bars[bar].addr;
}

static void written(struct pci_function *function, unsigned int offset, unsigned int len)
{
	MUST(offset + len <= PCI_CONFIG_SIZE);
	msix_config_written(container_of(function, struct device, function)->msix);
}

static int used(void *opaque, unsigned int index, int fd)
{
	((struct device *)opaque)->vectors[index] = rig->by_fd[fd];
	return 0;
}

static const struct msix_ops msix_ops = {.used = used};

static void own_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len)
{
	MUST((len == 1 || len == 2 || len == 4) && offset % len == 0 && offset + len <= PCI_CONFIG_SIZE);
	pci_config_read(function, offset, data, len);
}

static void own_write(struct pci_function *function, unsigned int offset, const void *data, unsigned int len)
{
	MUST((len == 1 || len == 2 || len == 4) && offset % len == 0 && offset + len <= PCI_CONFIG_SIZE);
	pci_config_write(function, offset, data, len);
}

static const struct pci_function_ops ops[] = {
	{.config_written = written, .bar_moved = moved},
	{.config_read = own_read, .config_write = own_write, .config_written = written, .bar_moved = moved},
};

static void write_config(const struct device *device, unsigned int offset, unsigned int len, uint32_t value)
{
	uint8_t data[4];

	put_le32(data, value);
	bus_write(rig->mmio, ECAM + device->function.devfn * 4096u + offset, data, len);
}

static void plug(struct device *device, struct input *in)
{
	struct msix_config config = {.vectors = VECTORS, .table_offset = 0, .pba_offset = 0x800, .msi = &rig->msi,
				     .ops = &msix_ops, .opaque = device};
	uint8_t shape = (uint8_t)take(in, 1);

	*device = (struct device){.plugged = true};
	rig->plugging = device;
	for (unsigned int i = 0; i < PCI_BARS; i++)
		device->at[i] = PCI_UNMAPPED;
	pci_function_init(&device->function, &ops[shape & 1], "fuzzed", 0x1234, 0x5678, 0xff0000, 0);
	pci_set_pin(&device->function, shape >> 1 & 7);
	pci_set_bar(&device->function, 0, PCI_BAR_MEM32, shape & 2, 4096ull << (shape & 3), &bar_ops, device);
	pci_set_bar(&device->function, 1, PCI_BAR_IO, false, 4ull << (shape >> 2 & 7), &bar_ops, device);
	pci_set_bar(&device->function, 2, PCI_BAR_MEM64, shape & 4, 16ull << (shape >> 2), &bar_ops, device);
	pci_set_bar(&device->function, 4, PCI_BAR_MEM64, true, MIB(64), NULL, NULL);
	pci_set_bar(&device->function, PCI_ROM_BAR, PCI_BAR_MEM32, false, KIB(2) << (shape & 7), NULL, NULL);
	MUST(msix_create(&device->function, &config, &device->msix, NULL) == 0);
	if (pci_bus_add(rig->bus, &device->function, shape & 8 ? (int)take(in, 1) : -1, NULL) == 0) {
		write_config(device, PCI_COMMAND, 2, shape >> 4);
		return;
	}
	MUST(!device->function.bus && !device->function.intx);
	msix_destroy(device->msix);
	device->plugged = false;
}

static void unplug(struct device *device)
{
	pci_bus_remove(&device->function);
	for (unsigned int i = 0; i < PCI_BARS; i++)
		MUST(device->at[i] == PCI_UNMAPPED);
	msix_destroy(device->msix);
	device->plugged = false;
}

/* ---- what must hold ---- */

static bool inside(uint64_t addr, uint64_t size, uint64_t base, uint64_t window)
{
	return addr >= base && addr < base + window && size <= base + window - addr;
}

static bool in_windows(const struct pci_bar *bar, uint64_t addr)
{
	if (bar->kind == PCI_BAR_IO)
		return inside(addr, bar->size, IO, IO_SIZE);
	return inside(addr, bar->size, MEM32, MEM32_SIZE) || inside(addr, bar->size, MEM64, MEM64_SIZE);
}

/* Another BAR is decoded where this one would be. */
static bool taken(const struct pci_bar *bar, uint64_t addr)
{
	for (unsigned int i = 0; i < DEVICES; i++)
		for (unsigned int k = 0; rig->devices[i].plugged && k < PCI_BARS; k++) {
			const struct pci_bar *other = &rig->devices[i].function.bars[k];

			if (other != bar && other->kind != PCI_BAR_NONE && other->addr != PCI_UNMAPPED &&
			    (other->kind == PCI_BAR_IO) == (bar->kind == PCI_BAR_IO) &&
			    ranges_overlap(addr, bar->size, other->addr, other->size))
				return true;
		}
	return false;
}

/* Where the registers want a BAR, worked out anew. */
static uint64_t wanted(const struct device *device, unsigned int index)
{
	const struct pci_bar *bar = &device->function.bars[index];
	const uint8_t *config = device->function.config, *reg = config + (index == 6 ? 0x30 : 0x10 + 4 * index);
	uint64_t addr = bar->kind == PCI_BAR_MEM64 ? get_le64(reg) : get_le32(reg);

	if (bar->kind == PCI_BAR_NONE || !(config[PCI_COMMAND] & (bar->kind == PCI_BAR_IO ? 1 : 2)) ||
	    (index == PCI_ROM_BAR && !(addr & 1)))
		return PCI_UNMAPPED;
	return align_down(addr, bar->size);
}

static void check_bar(struct device *device, unsigned int index)
{
	const struct pci_bar *bar = &device->function.bars[index];
	struct bus *bus = bar->kind == PCI_BAR_IO ? rig->pio : rig->mmio;
	uint64_t addr = wanted(device, index);
	uint8_t byte;

	if (bar->kind == PCI_BAR_NONE)
		return;
	if (addr != PCI_UNMAPPED && (!in_windows(bar, addr) || taken(bar, addr)))
		addr = PCI_UNMAPPED;
	MUST(bar->addr == addr && device->at[index] == addr);
	if (addr == PCI_UNMAPPED)
		return;
	rig->answered = NULL;
	if (bar->ops)
		MUST(bus_read(bus, addr + bar->size - 1, &byte, 1) && rig->answered == device);
	else
		MUST(!bus_read(bus, addr + bar->size - 1, &byte, 1));
}

static void check_vectors(struct device *device)
{
	uint16_t control = get_le16(device->function.config + device->function.last_cap + PCI_MSIX_FLAGS);
	bool on = control & PCI_MSIX_FLAGS_ENABLE, masked = control & PCI_MSIX_FLAGS_MASKALL;
	uint8_t pending[16], entry[16];

	MUST(msix_enabled(device->msix) == on);
	msix_pba_read(device->msix, 0, pending, 8);
	msix_pba_read(device->msix, 8, pending + 8, 8);
	for (unsigned int i = 0; i < VECTORS; i++) {
		const struct recorded *v = device->vectors[i];
		bool live;

		msix_table_read(device->msix, i * 16, entry, 8);
		msix_table_read(device->msix, i * 16 + 8, entry + 8, 8);
		MUST(get_le32(entry + 12) <= 1);
		live = on && !masked && !entry[12] && get_le32(entry + 8) != BAD_MESSAGE;
		MUST((v && v->connected) == live);
		MUST((pending[i / 8] >> i % 8 & 1) == (device->kicked[i] && !live));
		if (live && device->kicked[i]) {
			MUST(eventfd_drain(v->vector.fd));
			device->kicked[i] = false;
		}
	}
}

static void check(void)
{
	uint8_t id[4];

	MUST(bus_read(rig->mmio, ECAM, id, 4) && get_le32(id) == 0x00081b36);
	for (unsigned int i = 0; i < DEVICES; i++) {
		struct device *device = &rig->devices[i];

		if (!device->plugged)
			continue;
		MUST(pci_bus_function(rig->bus, device->function.devfn) == &device->function);
		for (unsigned int k = 0; k < PCI_BARS; k++)
			check_bar(device, k);
		check_vectors(device);
	}
}

/* ---- the actions ---- */

/* An address that may hurt: near the edges of something. */
static uint64_t interesting(struct input *in)
{
	static const uint64_t bases[] = {0, 0xffff0000, ECAM, MEM32, MEM32 + MEM32_SIZE, MEM64, MEM64 + MEM64_SIZE, IO,
					 IO + IO_SIZE, 0xfee00000, UINT64_MAX - 0xffff, 0x100000000};
	uint64_t base = bases[take(in, 1) % ARRAY_SIZE(bases)];

	return base + ((uint64_t)(int64_t)(int8_t)take(in, 1) << (take(in, 1) & 31));
}

static void access_bus(struct bus *bus, uint64_t addr, struct input *in)
{
	uint8_t shape = (uint8_t)take(in, 1), data[8];
	unsigned int len = 1u << (shape >> 1 & 3);

	put_le64(data, take(in, len));
	if (shape & 1)
		bus_write(bus, addr, data, len);
	else
		bus_read(bus, addr, data, len);
}

/* Points a BAR somewhere, or to where a device's BAR was at first; both halves if it has two. */
static void move_bar(struct device *device, struct input *in)
{
	static const uint8_t regs[] = {0x10, 0x14, 0x18, 0x20, 0x30};
	uint8_t reg = regs[take(in, 1) % ARRAY_SIZE(regs)];
	uint8_t pick = (uint8_t)take(in, 1);
	uint64_t addr = rig->devices[pick & 1].function.bars[(pick >> 1) % PCI_BARS].home;

	if (pick >= 128)
		addr = interesting(in);
	write_config(device, reg, 4, (uint32_t)addr | (reg == 0x30));
	if (reg == 0x18 || reg == 0x20)
		write_config(device, reg + 4, 4, (uint32_t)(addr >> 32));
}

static void act_on(struct device *device, uint8_t what, struct input *in)
{
	unsigned int pick = (unsigned int)take(in, 1), vector = pick < 128 ? pick & 1 : pick % VECTORS;
	uint8_t data[8];
	int fd;

	switch (what % 7) {
	case 0:
		move_bar(device, in);
		break;
	case 1:
		write_config(device, PCI_COMMAND, 2, (uint32_t)take(in, 2));
		break;
	case 2:
		if (device->at[0] != PCI_UNMAPPED)
			access_bus(rig->mmio, device->at[0] + take(in, 2) % 0x900, in);
		break;
	case 3:
		fd = msix_vector_fd(device->msix, vector);
		MUST(fd >= 0);
		eventfd_kick(fd);
		device->kicked[vector] = true;
		break;
	case 4:
		write_config(device, device->function.last_cap + PCI_MSIX_FLAGS, 2, (uint32_t)take(in, 2));
		break;
	case 5:
		put_le64(data, take(in, 1) << 32 | (pick & 4 ? BAD_MESSAGE : pick));
		msix_table_write(device->msix, vector * 16 + PCI_MSIX_ENTRY_DATA, data, 8);
		break;
	default:
		pci_set_intx(&device->function, vector & 1);
		break;
	}
}

static void act(struct input *in)
{
	uint8_t what = (uint8_t)take(in, 1);
	struct device *device = &rig->devices[take(in, 1) % DEVICES];

	if (what < 64)
		access_bus(rig->mmio, ECAM + take(in, 3) % 0x100010, in);
	else if (what < 72)
		access_bus(what & 1 ? rig->pio : rig->mmio, interesting(in), in);
	else if (!device->plugged)
		plug(device, in);
	else if (what < 80)
		unplug(device);
	else
		act_on(device, what, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct rig here = {.mmio = bus_create(), .pio = bus_create(), .msi.ops = &rec_ops};
	struct pci_bus_config config = {
		.windows = {ECAM, MEM32, MEM32_SIZE, MEM64, MEM64_SIZE, IO, IO_SIZE},
		.mmio = here.mmio, .pio = here.pio, .intx = &intx_ops,
	};

	rig = &here;
	MUST(pci_bus_create(&config, &here.bus, NULL) == 0);
	for (unsigned int i = 0; i < ACTIONS && in.left; i++) {
		act(&in);
		check();
	}
	for (unsigned int i = 0; i < DEVICES; i++)
		if (here.devices[i].plugged)
			unplug(&here.devices[i]);
	pci_bus_destroy(here.bus);
	bus_destroy(here.mmio);
	bus_destroy(here.pio);
	return 0;
}
