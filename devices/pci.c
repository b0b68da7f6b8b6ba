/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pci.h. Numbers and registers follow the PCI Local Bus specification 3.0 chapter 6 and linux/pci_regs.h.
 *
 * Two locks: the bus's, around every config access and change of the bus, and a small one around the INTx levels,
 * which devices set from their own threads. The second nests inside the first.
 */
#include "devices/pci_bar.h"

#include <pthread.h>

#define ECAM_SIZE (PCI_FUNCTIONS * PCI_CONFIG_SIZE)
#define MULTI_FUNCTION 0x80u /* in the header type */
#define CAPS_END 256u /* extended capabilities begin here */

/* The host bridge at 00.0: the identity that guests know from other virtual PCIe roots. */
#define BRIDGE_VENDOR 0x1b36
#define BRIDGE_DEVICE 0x0008
#define BRIDGE_CLASS 0x060000

#define COMMAND_WRITABLE                                                                              \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | \
	 PCI_COMMAND_INTX_DISABLE)

/* ---- what every function has ---- */

void pci_function_init(struct pci_function *function, const struct pci_function_ops *ops, const char *name,
		       uint16_t vendor, uint16_t device, uint32_t class_code, uint8_t revision)
{
	uint8_t *config = function->config, *wmask = function->wmask;

	function->ops = ops;
	function->name = name;
	function->free_cap = PCI_STD_HEADER_SIZEOF;
	put_le16(config + PCI_VENDOR_ID, vendor);
	put_le16(config + PCI_DEVICE_ID, device);
	put_le32(config + PCI_CLASS_REVISION, class_code << 8 | revision);
	put_le16(wmask + PCI_COMMAND, COMMAND_WRITABLE);
	wmask[PCI_CACHE_LINE_SIZE] = 0xff;
	wmask[PCI_LATENCY_TIMER] = 0xff;
	wmask[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_set_subsystem(struct pci_function *function, uint16_t vendor, uint16_t device)
{
	put_le16(function->config + PCI_SUBSYSTEM_VENDOR_ID, vendor);
	put_le16(function->config + PCI_SUBSYSTEM_ID, device);
}

void pci_set_pin(struct pci_function *function, uint8_t pin)
{
	function->config[PCI_INTERRUPT_PIN] = pin;
}

int pci_add_capability(struct pci_function *function, uint8_t id, uint8_t len)
{
	unsigned int offset = (unsigned int)align_up(function->free_cap, 4);

	if (len < PCI_CAP_SIZEOF || offset + len > CAPS_END)
		return -ENOSPC;
	function->config[offset + PCI_CAP_LIST_ID] = id;
	function->config[function->last_cap ? function->last_cap + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST] =
		(uint8_t)offset;
	function->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	function->last_cap = (uint16_t)offset;
	function->free_cap = (uint16_t)(offset + len);
	return (int)offset;
}

bool pci_memory_enabled(const struct pci_function *function)
{
	return pci_command(function) & PCI_COMMAND_MEMORY;
}

bool pci_bus_master_enabled(const struct pci_function *function)
{
	return pci_command(function) & PCI_COMMAND_MASTER;
}

/* ---- config accesses ---- */

static bool pci_touches(unsigned int offset, unsigned int len, unsigned int reg, unsigned int reg_len)
{
	return offset < reg + reg_len && reg < offset + len;
}

void pci_config_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len)
{
	if (offset >= PCI_CONFIG_SIZE || len > PCI_CONFIG_SIZE - offset) {
		memset(data, 0xff, len);
		return;
	}
	memcpy(data, function->config + offset, len);
	if (pci_touches(offset, len, PCI_STATUS, 1) && __atomic_load_n(&function->intx_level, __ATOMIC_ACQUIRE))
		((uint8_t *)data)[PCI_STATUS - offset] |= PCI_STATUS_INTERRUPT;
}

/* Makes the line what level and the disable bit say. INTx lock held. */
static void pci_drive_intx(struct pci_function *function)
{
	bool level = function->intx_level && !(pci_command(function) & PCI_COMMAND_INTX_DISABLE);

	if (level == function->intx_driven)
		return;
	function->intx_driven = level;
	irq_line_set(function->intx, level);
}

void pci_set_intx(struct pci_function *function, bool level)
{
	struct pci_bus *bus = function->bus;

	if (!bus)
		return;
	pthread_mutex_lock(&bus->intx_lock);
	__atomic_store_n(&function->intx_level, level, __ATOMIC_RELEASE);
	pci_drive_intx(function);
	pthread_mutex_unlock(&bus->intx_lock);
}

/* The command register was old and has been written. */
static void pci_command_written(struct pci_function *function, uint16_t old)
{
	uint16_t changed = old ^ pci_command(function);

	if (changed & PCI_COMMAND_INTX_DISABLE) {
		pthread_mutex_lock(&function->bus->intx_lock);
		pci_drive_intx(function);
		pthread_mutex_unlock(&function->bus->intx_lock);
	}
	if (changed & PCI_COMMAND_MASTER && function->ops && function->ops->bus_master)
		function->ops->bus_master(function, pci_bus_master_enabled(function));
}

void pci_config_write(struct pci_function *function, unsigned int offset, const void *data, unsigned int len)
{
	uint16_t old = pci_command(function);
	const uint8_t *in = data;

	if (offset >= PCI_CONFIG_SIZE || len > PCI_CONFIG_SIZE - offset)
		return;
	for (unsigned int i = 0; i < len; i++) {
		uint8_t mask = function->wmask[offset + i];

		function->config[offset + i] = (uint8_t)((function->config[offset + i] & ~mask) | (in[i] & mask));
	}
	if (function->bus) {
		if (pci_touches(offset, len, PCI_COMMAND, 2))
			pci_command_written(function, old);
		if (pci_touches(offset, len, PCI_COMMAND, 2) || pci_touches(offset, len, PCI_BASE_ADDRESS_0, 24) ||
		    pci_touches(offset, len, PCI_ROM_ADDRESS, 4))
			if (pci_bar_update(function))
				pci_bar_retry(function->bus);
	}
	if (function->ops && function->ops->config_written)
		function->ops->config_written(function, offset, len);
}

/* The function that answers at devfn: without function 0 the device is not there. */
static struct pci_function *pci_visible(const struct pci_bus *bus, unsigned int devfn)
{
	return bus->functions[devfn & ~7u] ? bus->functions[devfn] : NULL;
}

static bool pci_multi_function(const struct pci_bus *bus, unsigned int devfn)
{
	for (unsigned int i = devfn + 1; i < devfn + 8; i++)
		if (bus->functions[i])
			return true;
	return false;
}

/* One naturally aligned access of 1, 2 or 4 bytes. Lock held. */
static void pci_read_piece(struct pci_bus *bus, uint64_t addr, uint8_t *data, unsigned int len)
{
	unsigned int devfn = (unsigned int)(addr / PCI_CONFIG_SIZE), offset = addr % PCI_CONFIG_SIZE;
	struct pci_function *function = pci_visible(bus, devfn);

	if (!function) {
		memset(data, 0xff, len);
		return;
	}
	if (function->ops && function->ops->config_read)
		function->ops->config_read(function, offset, data, len);
	else
		pci_config_read(function, offset, data, len);
	if (!(devfn & 7) && pci_touches(offset, len, PCI_HEADER_TYPE, 1)) {
		data[PCI_HEADER_TYPE - offset] &= PCI_HEADER_TYPE_MASK;
		data[PCI_HEADER_TYPE - offset] |= pci_multi_function(bus, devfn) ? MULTI_FUNCTION : 0;
	}
}

static void pci_write_piece(struct pci_bus *bus, uint64_t addr, const uint8_t *data, unsigned int len)
{
	struct pci_function *function = pci_visible(bus, (unsigned int)(addr / PCI_CONFIG_SIZE));
	unsigned int offset = addr % PCI_CONFIG_SIZE;

	if (!function)
		return;
	if (function->ops && function->ops->config_write)
		function->ops->config_write(function, offset, data, len);
	else
		pci_config_write(function, offset, data, len);
}

/* How much of an access at addr is naturally aligned: 1, 2 or 4. */
static unsigned int pci_piece_len(uint64_t addr, unsigned int len)
{
	unsigned int piece = addr & 1 ? 1 : addr & 2 ? 2 : 4;

	while (piece > len)
		piece /= 2;
	return piece;
}

static void pci_ecam_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct pci_bus *bus = opaque;

	pthread_mutex_lock(&bus->lock);
	for (unsigned int done = 0, piece; done < len; done += piece) {
		piece = pci_piece_len(offset + done, len - done);
		pci_read_piece(bus, offset + done, (uint8_t *)data + done, piece);
	}
	pthread_mutex_unlock(&bus->lock);
}

static void pci_ecam_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct pci_bus *bus = opaque;

	pthread_mutex_lock(&bus->lock);
	for (unsigned int done = 0, piece; done < len; done += piece) {
		piece = pci_piece_len(offset + done, len - done);
		pci_write_piece(bus, offset + done, (const uint8_t *)data + done, piece);
	}
	pthread_mutex_unlock(&bus->lock);
}

/* ---- the bus ---- */

static const struct bus_ops ecam_ops = {pci_ecam_read, pci_ecam_write};

int pci_bus_create(const struct pci_bus_config *config, struct pci_bus **ret, struct err *err)
{
	struct pci_bus *bus = calloc(1, sizeof(*bus));
	int code;

	if (!bus)
		return err_sys(err, -ENOMEM, "pci");
	bus->config = *config;
	pthread_mutex_init(&bus->lock, NULL);
	pthread_mutex_init(&bus->intx_lock, NULL);
	pci_function_init(&bus->bridge, NULL, "host bridge", BRIDGE_VENDOR, BRIDGE_DEVICE, BRIDGE_CLASS, 0);
	code = pci_bus_add(bus, &bus->bridge, PCI_DEVFN(0, 0), err);
	if (code == 0) {
		code = bus_add(config->mmio, config->windows.ecam, ECAM_SIZE, &ecam_ops, bus, "ecam", err);
		if (code < 0)
			pci_bus_remove(&bus->bridge);
	}
	if (code < 0) {
		pci_bus_destroy(bus);
		return code;
	}
	*ret = bus;
	return 0;
}

void pci_bus_destroy(struct pci_bus *bus)
{
	if (!bus)
		return;
	if (bus->bridge.bus)
		bus_remove(bus->config.mmio, bus->config.windows.ecam);
	pci_bus_remove(&bus->bridge);
	pthread_mutex_destroy(&bus->intx_lock);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}

static int pci_find_slot(const struct pci_bus *bus, int devfn, const char *name, struct err *err)
{
	if (devfn >= (int)PCI_FUNCTIONS)
		return err_set(err, -EINVAL, "%s: there is no PCI slot %02x.%d", name, devfn / 8u, devfn % 8);
	if (devfn >= 0 && bus->functions[devfn])
		return err_set(err, -EBUSY, "%s: PCI slot %02x.%d is taken by %s", name, devfn / 8u, devfn % 8,
			       bus->functions[devfn]->name);
	if (devfn >= 0)
		return devfn;
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i += 8)
		if (!bus->functions[i] && !pci_multi_function(bus, i))
			return (int)i;
	return err_set(err, -ENOSPC, "%s: all %u PCI slots are taken", name, PCI_DEVICES);
}

static int pci_join_bus(struct pci_bus *bus, struct pci_function *function, struct err *err)
{
	uint8_t pin = function->config[PCI_INTERRUPT_PIN];
	int ret = 0;

	for (unsigned int i = 0; i < PCI_BARS; i++)
		function->bars[i].home = function->bars[i].addr = PCI_UNMAPPED;
	for (unsigned int i = 0; ret == 0 && i < PCI_BARS; i++)
		if (function->bars[i].kind != PCI_BAR_NONE)
			ret = pci_bar_place(function, i, err);
	if (ret == 0 && pin >= 1 && pin <= 4 && bus->config.intx)
		ret = bus->config.intx->create(bus->config.intx_opaque, (function->devfn / 8 + pin - 1u) % 4,
					       &function->intx, err);
	return ret;
}

int pci_bus_add(struct pci_bus *bus, struct pci_function *function, int devfn, struct err *err)
{
	int ret;

	pthread_mutex_lock(&bus->lock);
	ret = pci_find_slot(bus, devfn, function->name, err);
	if (ret >= 0) {
		function->bus = bus;
		function->devfn = (uint8_t)ret;
		function->complained = function->intx_level = function->intx_driven = false;
		put_le16(function->config + PCI_COMMAND, 0);
		bus->functions[function->devfn] = function;
		ret = pci_join_bus(bus, function, err);
		if (ret < 0) {
			bus->functions[function->devfn] = NULL;
			function->bus = NULL;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

/* Command register to zero with all that follows: BARs unmapped, no bus master, line low. Lock held. */
static void pci_quiet(struct pci_function *function)
{
	uint16_t old = pci_command(function);

	pthread_mutex_lock(&function->bus->intx_lock);
	__atomic_store_n(&function->intx_level, false, __ATOMIC_RELEASE);
	put_le16(function->config + PCI_COMMAND, 0);
	pci_drive_intx(function);
	pthread_mutex_unlock(&function->bus->intx_lock);
	pci_command_written(function, old);
	pci_bar_update(function);
}

void pci_bus_remove(struct pci_function *function)
{
	struct pci_bus *bus = function->bus;

	if (!bus)
		return;
	pthread_mutex_lock(&bus->lock);
	pci_quiet(function);
	bus->functions[function->devfn] = NULL;
	if (function->intx)
		bus->config.intx->destroy(bus->config.intx_opaque, function->intx);
	function->intx = NULL;
	function->bus = NULL;
	pci_bar_retry(bus);
	pthread_mutex_unlock(&bus->lock);
}

struct pci_function *pci_bus_function(struct pci_bus *bus, uint8_t devfn)
{
	struct pci_function *function;

	pthread_mutex_lock(&bus->lock);
	function = bus->functions[devfn];
	pthread_mutex_unlock(&bus->lock);
	return function;
}

void pci_bus_reset(struct pci_bus *bus)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int devfn = 0; devfn < PCI_FUNCTIONS; devfn++) {
		struct pci_function *function = bus->functions[devfn];

		if (!function)
			continue;
		pci_quiet(function);
		for (unsigned int i = 0; i < PCI_BARS; i++)
			if (function->bars[i].kind != PCI_BAR_NONE)
				pci_bar_write(function, i, function->bars[i].home);
		function->config[PCI_CACHE_LINE_SIZE] = function->config[PCI_LATENCY_TIMER] = 0;
		function->config[PCI_INTERRUPT_LINE] = 0;
		if (function->ops && function->ops->reset)
			function->ops->reset(function);
	}
	bus->blocked = false;
	pthread_mutex_unlock(&bus->lock);
}
