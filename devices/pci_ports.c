/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ports of PCI configuration mechanism #1 (PCI Local Bus specification 3.0, 3.2.2.3.2), beside ECAM. They serve
 * guests that do not use MCFG. Linux on x86 accesses the first 256 bytes of every function through them if they exist.
 * See pci.h.
 */
#include "devices/pci_internal.h"

#define ADDRESS 0u
#define DATA 4u
#define PORTS 8u

#define ENABLE (1u << 31)
#define WRITABLE (ENABLE | 0x00fffffcu) /* bus, device, function, register */

/* The access's offset in ECAM. False: no function answers. */
static bool pci_ports_target(const struct pci_bus *bus, uint64_t port, uint64_t *offset)
{
	uint32_t address = __atomic_load_n(&bus->config_address, __ATOMIC_RELAXED);

	if (!(address & ENABLE) || address >> 16 & 0xff)
		return false;
	*offset = (address >> 8 & 0xff) * PCI_CONFIG_SIZE + (address & 0xfc) + (port - DATA);
	return true;
}

static void pci_ports_read(void *opaque, uint64_t port, void *data, unsigned int len)
{
	struct pci_bus *bus = opaque;
	uint64_t offset;

	memset(data, 0xff, len);
	if (port == ADDRESS && len == 4)
		put_le32(data, __atomic_load_n(&bus->config_address, __ATOMIC_RELAXED));
	else if (port >= DATA && pci_ports_target(bus, port, &offset))
		pci_bus_read(bus, offset, data, len);
}

/* The address register takes whole double words only (3.2.2.3.2). */
static void pci_ports_write(void *opaque, uint64_t port, const void *data, unsigned int len)
{
	struct pci_bus *bus = opaque;
	uint64_t offset;

	if (port == ADDRESS && len == 4)
		__atomic_store_n(&bus->config_address, get_le32(data) & WRITABLE, __ATOMIC_RELAXED);
	else if (port >= DATA && pci_ports_target(bus, port, &offset))
		pci_bus_write(bus, offset, data, len);
}

int pci_ports_add(struct pci_bus *bus, struct bus *pio, uint64_t port, struct err *err)
{
	static const struct bus_ops ops = {pci_ports_read, pci_ports_write};

	return bus_add(pio, port, PORTS, &ops, bus, "PCI configuration ports", err);
}
