/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pci_bus.c, pci_ports.c, pci_function.c, pci_bar.c and pci_state.c share; nobody else includes it. All calls with
 * the bus's lock held, unless they say otherwise.
 */
#pragma once

#include "devices/pci.h"

#include <pthread.h>

#define PCI_FUNCTIONS 256u

struct pci_bus {
	struct pci_bus_config config;
	pthread_mutex_t lock;
	pthread_mutex_t intx_lock;
	uint32_t config_address; /* the register at the first port, see pci_ports.c; atomic */
	bool blocked; /* some BAR would be decoded but for another one in its way */
	struct pci_function *functions[PCI_FUNCTIONS];
	struct pci_function bridge;
};

static inline uint16_t pci_command(const struct pci_function *function)
{
	return get_le16(function->config + PCI_COMMAND);
}

/*
 * An access of len bytes (1 to 8) to the bus's config space, laid out as in ECAM; takes the lock. Where no function is
 * reads ones.
 */
void pci_bus_read(struct pci_bus *bus, uint64_t offset, void *data, unsigned int len);
void pci_bus_write(struct pci_bus *bus, uint64_t offset, const void *data, unsigned int len);

/* Command register to zero with all that follows: BARs unmapped, no bus master, line low. */
void pci_function_quiet(struct pci_function *function);

/* Finds a home for a BAR of a function that is on the bus and writes it to the register. -ENOSPC. */
int pci_bar_place(struct pci_function *function, unsigned int bar, struct err *err);

/* Sets a BAR's register to an address. */
void pci_bar_write(struct pci_function *function, unsigned int bar, uint64_t addr);

/* Decodes the function's BARs as its registers say now; true when that made room for others. */
bool pci_bar_update(struct pci_function *function);

/* BARs that found their place taken get it if it is free now. */
void pci_bar_retry(struct pci_bus *bus);

/*
 * For a function whose registers have just been loaded and that decodes nothing yet: gives a BAR its home and decodes
 * it at addr, or PCI_UNMAPPED not at all, as another one was in its way. -EBADMSG when that does not go with the
 * registers.
 */
int pci_bar_load(struct pci_function *function, unsigned int bar, uint64_t home, uint64_t addr, struct err *err);
