/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pci.h: the parts of a function that need no bus: header, capabilities, config accesses, pin. Numbers and
 * registers are those of the PCI Local Bus specification 3.0 chapter 6 and linux/pci_regs.h.
 */
#include "devices/pci_internal.h"

#define CAPS_END 256u /* extended capabilities begin here */

#define COMMAND_WRITABLE                                                                              \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | \
	 PCI_COMMAND_INTX_DISABLE)

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

bool pci_bus_master_enabled(const struct pci_function *function)
{
	return pci_command(function) & PCI_COMMAND_MASTER;
}

/* ---- config accesses ---- */

void pci_config_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len)
{
	if (offset >= PCI_CONFIG_SIZE || len > PCI_CONFIG_SIZE - offset) {
		memset(data, 0xff, len);
		return;
	}
	memcpy(data, function->config + offset, len);
	if (ranges_overlap(offset, len, PCI_STATUS, 1) && __atomic_load_n(&function->intx_level, __ATOMIC_ACQUIRE))
		((uint8_t *)data)[PCI_STATUS - offset] |= PCI_STATUS_INTERRUPT;
}

/* Sets the line from level and the disable bit. INTx lock held. */
static void pci_function_drive_intx(struct pci_function *function)
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
	pci_function_drive_intx(function);
	pthread_mutex_unlock(&bus->intx_lock);
}

/* The command register has been written; it was old before. */
static void pci_function_command_written(struct pci_function *function, uint16_t old)
{
	uint16_t changed = old ^ pci_command(function);

	if (changed & PCI_COMMAND_INTX_DISABLE) {
		pthread_mutex_lock(&function->bus->intx_lock);
		pci_function_drive_intx(function);
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
		if (ranges_overlap(offset, len, PCI_COMMAND, 2))
			pci_function_command_written(function, old);
		if (ranges_overlap(offset, len, PCI_COMMAND, 2) ||
		    ranges_overlap(offset, len, PCI_BASE_ADDRESS_0, 24) ||
		    ranges_overlap(offset, len, PCI_ROM_ADDRESS, 4))
			if (pci_bar_update(function))
				pci_bar_retry(function->bus);
	}
	if (function->ops && function->ops->config_written)
		function->ops->config_written(function, offset, len);
}

void pci_function_quiet(struct pci_function *function)
{
	uint16_t old = pci_command(function);

	pthread_mutex_lock(&function->bus->intx_lock);
	__atomic_store_n(&function->intx_level, false, __ATOMIC_RELEASE);
	put_le16(function->config + PCI_COMMAND, 0);
	pci_function_drive_intx(function);
	pthread_mutex_unlock(&function->bus->intx_lock);
	pci_function_command_written(function, old);
	pci_bar_update(function);
}
