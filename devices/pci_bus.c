/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pci.h. Numbers and registers follow the PCI Local Bus specification 3.0 chapter 6 and linux/pci_regs.h.
 *
 * Two locks: the bus's, around every config access and change of the bus, and a small one around the INTx levels,
 * which devices set from their own threads. The second nests inside the first.
 */
#include "devices/pci_internal.h"

#define ECAM_SIZE (PCI_FUNCTIONS * PCI_CONFIG_SIZE)
#define MULTI_FUNCTION 0x80u /* in the header type */

/* The host bridge at 00.0: the identity that guests know from other virtual PCIe roots. */
#define BRIDGE_VENDOR 0x1b36
#define BRIDGE_DEVICE 0x0008
#define BRIDGE_CLASS 0x060000

/* The function that answers at devfn: without function 0 the device is not there. */
static struct pci_function *pci_bus_visible(const struct pci_bus *bus, unsigned int devfn)
{
	return bus->functions[devfn & ~7u] ? bus->functions[devfn] : NULL;
}

static bool pci_bus_multi_function(const struct pci_bus *bus, unsigned int devfn)
{
	for (unsigned int i = devfn + 1; i < devfn + 8; i++)
		if (bus->functions[i])
			return true;
	return false;
}

/* One naturally aligned access of 1, 2 or 4 bytes. Lock held. */
static void pci_bus_read_piece(struct pci_bus *bus, uint64_t addr, uint8_t *data, unsigned int len)
{
	unsigned int devfn = (unsigned int)(addr / PCI_CONFIG_SIZE), offset = addr % PCI_CONFIG_SIZE;
	struct pci_function *function = pci_bus_visible(bus, devfn);

	if (!function) {
		memset(data, 0xff, len);
		return;
	}
	if (function->ops && function->ops->config_read)
		function->ops->config_read(function, offset, data, len);
	else
		pci_config_read(function, offset, data, len);
	if (!(devfn & 7) && ranges_overlap(offset, len, PCI_HEADER_TYPE, 1)) {
		data[PCI_HEADER_TYPE - offset] &= PCI_HEADER_TYPE_MASK;
		data[PCI_HEADER_TYPE - offset] |= pci_bus_multi_function(bus, devfn) ? MULTI_FUNCTION : 0;
	}
}

static void pci_bus_write_piece(struct pci_bus *bus, uint64_t addr, const uint8_t *data, unsigned int len)
{
	struct pci_function *function = pci_bus_visible(bus, (unsigned int)(addr / PCI_CONFIG_SIZE));
	unsigned int offset = addr % PCI_CONFIG_SIZE;

	if (!function)
		return;
	if (function->ops && function->ops->config_write)
		function->ops->config_write(function, offset, data, len);
	else
		pci_config_write(function, offset, data, len);
}

/* How much of an access at addr is naturally aligned: 1, 2 or 4. */
static unsigned int pci_bus_piece_len(uint64_t addr, unsigned int len)
{
	unsigned int piece = addr & 1 ? 1 : addr & 2 ? 2 : 4;

	while (piece > len)
		piece /= 2;
	return piece;
}

void pci_bus_read(struct pci_bus *bus, uint64_t offset, void *data, unsigned int len)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int done = 0, piece; done < len; done += piece) {
		piece = pci_bus_piece_len(offset + done, len - done);
		pci_bus_read_piece(bus, offset + done, (uint8_t *)data + done, piece);
	}
	pthread_mutex_unlock(&bus->lock);
}

void pci_bus_write(struct pci_bus *bus, uint64_t offset, const void *data, unsigned int len)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int done = 0, piece; done < len; done += piece) {
		piece = pci_bus_piece_len(offset + done, len - done);
		pci_bus_write_piece(bus, offset + done, (const uint8_t *)data + done, piece);
	}
	pthread_mutex_unlock(&bus->lock);
}

static void pci_bus_ecam_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	pci_bus_read(opaque, offset, data, len);
}

static void pci_bus_ecam_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	pci_bus_write(opaque, offset, data, len);
}

/* ---- the bus ---- */

static const struct bus_ops ecam_ops = {pci_bus_ecam_read, pci_bus_ecam_write};

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

static int pci_bus_find_slot(const struct pci_bus *bus, int devfn, const char *name, struct err *err)
{
	if (devfn >= (int)PCI_FUNCTIONS)
		return err_set(err, -EINVAL, "%s: there is no PCI slot %02x.%d", name, devfn / 8u, devfn % 8);
	if (devfn >= 0 && bus->functions[devfn])
		return err_set(err, -EBUSY, "%s: PCI slot %02x.%d is taken by %s", name, devfn / 8u, devfn % 8,
			       bus->functions[devfn]->name);
	if (devfn >= 0)
		return devfn;
	for (unsigned int i = 0; i < PCI_FUNCTIONS; i += 8)
		if (!bus->functions[i] && !pci_bus_multi_function(bus, i))
			return (int)i;
	return err_set(err, -ENOSPC, "%s: all %u PCI slots are taken", name, PCI_DEVICES);
}

static int pci_bus_join(struct pci_bus *bus, struct pci_function *function, struct err *err)
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
	ret = pci_bus_find_slot(bus, devfn, function->name, err);
	if (ret >= 0) {
		function->bus = bus;
		function->devfn = (uint8_t)ret;
		function->complained = function->intx_level = function->intx_driven = false;
		put_le16(function->config + PCI_COMMAND, 0);
		bus->functions[function->devfn] = function;
		ret = pci_bus_join(bus, function, err);
		if (ret < 0) {
			bus->functions[function->devfn] = NULL;
			function->bus = NULL;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

void pci_bus_remove(struct pci_function *function)
{
	struct pci_bus *bus = function->bus;

	if (!bus)
		return;
	pthread_mutex_lock(&bus->lock);
	pci_function_quiet(function);
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
