/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pci.h and pci_internal.h: the registers of a function's BARs, their placement and their decoding.
 *
 * Only the functions on the bus record the addresses in use, so the removal of a function frees its addresses.
 */
#include "devices/pci_internal.h"

#define PAGE 4096ull

/* ---- registers and decoding ---- */

static unsigned int pci_bar_register(unsigned int bar)
{
	return bar == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + 4 * bar;
}

int pci_set_bar(struct pci_function *function, unsigned int bar, enum pci_bar_kind kind, bool prefetch, uint64_t size,
		const struct bus_ops *ops, void *opaque)
{
	static const struct {
		uint64_t min, max;
		uint8_t flags;
	} kinds[] = {
		[PCI_BAR_IO] = {4, KIB(64), PCI_BASE_ADDRESS_SPACE_IO},
		[PCI_BAR_MEM32] = {16, GIB(2), 0},
		[PCI_BAR_MEM64] = {16, 1ull << 62, PCI_BASE_ADDRESS_MEM_TYPE_64},
	};
	unsigned int reg = pci_bar_register(bar);
	uint64_t min, mask = ~(size - 1);
	uint8_t flags;

	if (bar >= PCI_BARS || kind == PCI_BAR_NONE || kind > PCI_BAR_MEM64 ||
	    (kind == PCI_BAR_MEM64 && bar >= PCI_ROM_BAR - 1) || (bar == PCI_ROM_BAR && kind != PCI_BAR_MEM32))
		return -EINVAL;
	min = bar == PCI_ROM_BAR ? KIB(2) : kinds[kind].min;
	if (!is_power_of_two(size) || size < min || size > kinds[kind].max)
		return -EINVAL;
	flags = kinds[kind].flags | (prefetch && kind != PCI_BAR_IO ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0);
	function->bars[bar] = (struct pci_bar){kind, prefetch, size, ops, opaque, PCI_UNMAPPED, PCI_UNMAPPED};
	put_le32(function->wmask + reg, (uint32_t)mask);
	if (kind == PCI_BAR_MEM64)
		put_le32(function->wmask + reg + 4, (uint32_t)(mask >> 32));
	if (bar == PCI_ROM_BAR)
		function->wmask[reg] |= PCI_ROM_ADDRESS_ENABLE;
	else
		function->config[reg] = flags;
	return 0;
}

/* The address that the guest has written; the flag bits are below the size. */
static uint64_t pci_bar_written(const struct pci_function *function, unsigned int bar)
{
	const uint8_t *reg = function->config + pci_bar_register(bar);
	uint64_t addr = get_le32(reg);

	if (function->bars[bar].kind == PCI_BAR_MEM64)
		addr |= (uint64_t)get_le32(reg + 4) << 32;
	return addr & ~(function->bars[bar].size - 1);
}

void pci_bar_write(struct pci_function *function, unsigned int bar, uint64_t addr)
{
	uint8_t *reg = function->config + pci_bar_register(bar);
	uint32_t flags = bar == PCI_ROM_BAR ? 0 : reg[0] & (function->bars[bar].kind == PCI_BAR_IO ? 0x3 : 0xf);

	put_le32(reg, (uint32_t)addr | flags);
	if (function->bars[bar].kind == PCI_BAR_MEM64)
		put_le32(reg + 4, (uint32_t)(addr >> 32));
}

static bool pci_bar_same_space(const struct pci_bar *a, const struct pci_bar *b)
{
	return b->kind != PCI_BAR_NONE && (a->kind == PCI_BAR_IO) == (b->kind == PCI_BAR_IO);
}

static bool pci_bar_inside(uint64_t addr, uint64_t size, uint64_t base, uint64_t window)
{
	return addr >= base && size <= window && addr - base <= window - size;
}

static bool pci_bar_in_windows(const struct pci_windows *w, const struct pci_bar *bar, uint64_t addr)
{
	if (bar->kind == PCI_BAR_IO)
		return pci_bar_inside(addr, bar->size, w->io, w->io_size);
	return pci_bar_inside(addr, bar->size, w->mem32, w->mem32_size) ||
	       pci_bar_inside(addr, bar->size, w->mem64, w->mem64_size);
}

/* Where the BAR should be decoded, from its register and the enable bits. */
static uint64_t pci_bar_wanted(const struct pci_function *function, unsigned int bar)
{
	uint16_t enable = function->bars[bar].kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

	if (!function->bus || function->bars[bar].kind == PCI_BAR_NONE || !(pci_command(function) & enable))
		return PCI_UNMAPPED;
	if (bar == PCI_ROM_BAR && !(function->config[PCI_ROM_ADDRESS] & PCI_ROM_ADDRESS_ENABLE))
		return PCI_UNMAPPED;
	return pci_bar_written(function, bar);
}

/* Whether another decoded BAR overlaps [addr, addr + bar->size). */
static bool pci_bar_in_the_way(const struct pci_bus *bus, const struct pci_bar *bar, uint64_t addr)
{
	for (unsigned int devfn = 0; devfn < PCI_FUNCTIONS; devfn++) {
		const struct pci_function *function = bus->functions[devfn];

		for (unsigned int i = 0; function && i < PCI_BARS; i++) {
			const struct pci_bar *other = &function->bars[i];

			if (pci_bar_same_space(bar, other) && other->addr != PCI_UNMAPPED &&
			    ranges_overlap(addr, bar->size, other->addr, other->size))
				return true;
		}
	}
	return false;
}

static struct bus *pci_bar_bus(const struct pci_bus *bus, const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_IO ? bus->config.pio : bus->config.mmio;
}

static void pci_bar_unmap(struct pci_function *function, unsigned int index)
{
	struct pci_bar *bar = &function->bars[index];
	uint64_t old = bar->addr;

	if (bar->ops)
		bus_remove(pci_bar_bus(function->bus, bar), old);
	bar->addr = PCI_UNMAPPED;
	if (function->ops && function->ops->bar_moved)
		function->ops->bar_moved(function, index, old);
}

static int pci_bar_decode(struct pci_function *function, unsigned int index, uint64_t addr, struct err *err)
{
	struct pci_bus *bus = function->bus;
	struct pci_bar *bar = &function->bars[index];
	int ret = 0;

	if (!pci_bar_in_windows(&bus->config.windows, bar, addr) || pci_bar_in_the_way(bus, bar, addr))
		return err_set(err, -EINVAL, "outside the windows or overlapping another BAR");
	if (bar->ops)
		ret = bus_add(pci_bar_bus(bus, bar), addr, bar->size, bar->ops, bar->opaque, function->name, err);
	if (ret < 0)
		return ret;
	bar->addr = addr;
	if (function->ops && function->ops->bar_moved)
		function->ops->bar_moved(function, index, PCI_UNMAPPED);
	return 0;
}

static void pci_bar_map(struct pci_function *function, unsigned int index, uint64_t addr)
{
	struct pci_bus *bus = function->bus;
	struct err err;

	if (pci_bar_decode(function, index, addr, &err) == 0)
		return;
	bus->blocked = true;
	if (!function->complained)
		log_warn(bus->config.log, "%s: BAR %u is not decoded at 0x%llx: %s", function->name, index,
			 (unsigned long long)addr, err.text);
	function->complained = true;
}

bool pci_bar_update(struct pci_function *function)
{
	bool room = false;

	for (unsigned int i = 0; i < PCI_BARS; i++)
		if (function->bars[i].addr != PCI_UNMAPPED && function->bars[i].addr != pci_bar_wanted(function, i)) {
			pci_bar_unmap(function, i);
			room = true;
		}
	for (unsigned int i = 0; i < PCI_BARS; i++) {
		uint64_t wanted = pci_bar_wanted(function, i);

		if (function->bars[i].addr == PCI_UNMAPPED && wanted != PCI_UNMAPPED)
			pci_bar_map(function, i, wanted);
	}
	return room;
}

/* Whether pci_bar_place could have put the BAR at home. */
static bool pci_bar_home_fits(const struct pci_function *function, unsigned int index, uint64_t home)
{
	const struct pci_bar *bar = &function->bars[index];

	if (bar->kind == PCI_BAR_NONE)
		return home == PCI_UNMAPPED;
	return home % bar->size == 0 && pci_bar_in_windows(&function->bus->config.windows, bar, home);
}

int pci_bar_load(struct pci_function *function, unsigned int index, uint64_t home, uint64_t addr, struct err *err)
{
	uint64_t wanted = pci_bar_wanted(function, index);
	int ret;

	if (!pci_bar_home_fits(function, index, home))
		return err_set(err, -EBADMSG, "BAR %u cannot have its home at 0x%llx", index,
			       (unsigned long long)home);
	if (addr != PCI_UNMAPPED && addr != wanted)
		return err_set(err, -EBADMSG, "BAR %u is decoded at 0x%llx, not at the address in its registers", index,
			       (unsigned long long)addr);
	function->bars[index].home = home;
	function->bus->blocked |= addr != wanted;
	if (addr == PCI_UNMAPPED)
		return 0;
	ret = pci_bar_decode(function, index, addr, err);
	return ret < 0 ? err_prefix(err, ret, "BAR %u at 0x%llx", index, (unsigned long long)addr) : 0;
}

void pci_bar_retry(struct pci_bus *bus)
{
	if (!bus->blocked)
		return;
	bus->blocked = false;
	for (unsigned int devfn = 0; devfn < PCI_FUNCTIONS; devfn++)
		if (bus->functions[devfn])
			pci_bar_update(bus->functions[devfn]);
}

/* ---- placing ---- */

/* The bytes that a BAR occupies: whole pages, so that each can be mapped. */
static uint64_t pci_bar_extent(const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_IO ? bar->size : MAX(bar->size, PAGE);
}

/* The end of a BAR, at its home or at the guest's address, that overlaps [addr, addr + extent); 0: none. */
static uint64_t pci_bar_taken_until(const struct pci_bus *bus, const struct pci_bar *bar, uint64_t addr)
{
	for (unsigned int devfn = 0; devfn < PCI_FUNCTIONS; devfn++) {
		const struct pci_function *function = bus->functions[devfn];

		for (unsigned int i = 0; function && i < PCI_BARS; i++) {
			const struct pci_bar *other = &function->bars[i];
			uint64_t at[2] = {other->home, PCI_UNMAPPED};

			if (other == bar || !pci_bar_same_space(bar, other) || other->home == PCI_UNMAPPED)
				continue;
			at[1] = pci_bar_written(function, i);
			for (unsigned int k = 0; k < ARRAY_SIZE(at); k++) {
				/* A sub-page BAR moved by the guest may begin anywhere in its page. */
				uint64_t start = other->kind == PCI_BAR_IO ? at[k] : align_down(at[k], PAGE);

				if (ranges_overlap(addr, pci_bar_extent(bar), start, pci_bar_extent(other)))
					return start + (pci_bar_extent(other) - 1);
			}
		}
	}
	return 0;
}

/* A memory BAR that is being placed, and what its function avoids (NULL: nothing). */
struct candidate {
	struct pci_function *function;
	const struct pci_bar *bar;
	uint64_t (*avoid)(struct pci_function *function, uint64_t addr, uint64_t size);
};

/* First fit in a window. */
static uint64_t pci_bar_find_place(const struct candidate *candidate, uint64_t base, uint64_t window)
{
	const struct pci_bar *bar = candidate->bar;
	uint64_t align = pci_bar_extent(bar), extent = align, addr, last;

	if (!window || base > UINT64_MAX - (align - 1))
		return PCI_UNMAPPED;
	addr = align_up(base, align);
	while (pci_bar_inside(addr, extent, base, window)) {
		last = pci_bar_taken_until(candidate->function->bus, bar, addr);
		if (!last && candidate->avoid)
			last = candidate->avoid(candidate->function, addr, extent);
		if (!last)
			return addr;
		if (last > UINT64_MAX - align)
			break;
		addr = align_up(last + 1, align);
	}
	return PCI_UNMAPPED;
}

static uint64_t pci_bar_find_memory(const struct candidate *candidate)
{
	const struct pci_windows *w = &candidate->function->bus->config.windows;
	bool wide = candidate->bar->kind == PCI_BAR_MEM64, prefetch = candidate->bar->prefetch;
	uint64_t addr = PCI_UNMAPPED;

	if (wide && prefetch)
		addr = pci_bar_find_place(candidate, w->mem64, w->mem64_size);
	if (addr == PCI_UNMAPPED)
		addr = pci_bar_find_place(candidate, w->mem32, w->mem32_size);
	if (addr == PCI_UNMAPPED && wide && !prefetch)
		addr = pci_bar_find_place(candidate, w->mem64, w->mem64_size);
	return addr;
}

int pci_bar_place(struct pci_function *function, unsigned int index, struct err *err)
{
	const struct pci_windows *w = &function->bus->config.windows;
	struct pci_bar *bar = &function->bars[index];
	struct candidate candidate = {.function = function, .bar = bar};
	uint64_t addr = PCI_UNMAPPED;

	if (bar->kind == PCI_BAR_IO) {
		addr = pci_bar_find_place(&candidate, w->io, w->io_size);
	} else {
		candidate.avoid = function->ops ? function->ops->avoid : NULL;
		addr = pci_bar_find_memory(&candidate);
		if (addr == PCI_UNMAPPED && candidate.avoid) {
			candidate.avoid = NULL;
			addr = pci_bar_find_memory(&candidate);
		}
	}
	if (addr == PCI_UNMAPPED)
		return err_set(err, -ENOSPC, "%s: no room for BAR %u of %llu KiB", function->name, index,
			       (unsigned long long)(bar->size + 1023) / 1024);
	bar->home = addr;
	pci_bar_write(function, index, addr);
	return 0;
}
