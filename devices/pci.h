/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCIe root: one bus of 32 devices by 8 functions, reached by ECAM (PCIe base specification 7.2.2) and, where the
 * machine has them, by ports, and what every function on it has: configuration space, BARs, an INTx pin.
 *
 * A function's config space is bytes with a mask of what the guest may write. The BARs are kept here: sized, given an
 * address when the function is added (so that a guest without firmware finds them placed), moved when the guest moves
 * them, decoded only while the command register says so. Emulated devices give a BAR a bus_ops; a device whose BAR is
 * more than that (a mapped VFIO region) overrides bar_moved.
 *
 * A BAR is decoded only inside the bus's windows and only where no other BAR is decoded; anywhere else it is quietly
 * absent (one warning) until the guest moves it or what stood in its way. RAM and ECAM are outside the windows.
 *
 * Functions are integrated into the root complex: unless the device brings its own, none has a PCI Express capability,
 * and no bus lies behind another.
 *
 * Config accesses, and the hooks they call, are serialised by the bus's lock. Hooks must not sleep on the guest.
 */
#pragma once

#include "core/bus.h"
#include "core/irq.h"
#include "core/log.h"

#include <linux/pci_regs.h>

#define PCI_CONFIG_SIZE 4096u
#define PCI_DEVICES 32u
#define PCI_BARS 7u      /* six BARs and the expansion ROM */
#define PCI_ROM_BAR 6u
#define PCI_UNMAPPED UINT64_MAX
#define PCI_DEVFN(device, function) ((uint8_t)((device) << 3 | (function)))

struct pci_bus;
struct pci_function;

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
	enum pci_bar_kind kind;
	bool prefetch;
	uint64_t size;             /* bytes, a power of two; at least 4 (I/O), 16 (memory), 2048 (ROM) */
	const struct bus_ops *ops; /* answers accesses; NULL when bar_moved does everything */
	void *opaque;              /* for ops */
	uint64_t addr;             /* where it is decoded now, or PCI_UNMAPPED; the bus's to write */
	uint64_t home;             /* where pci_bus_add placed it; the bus's */
};

struct pci_function_ops {
	/* Fully replaces a config access; NULL: pci_config_read/write below. len is 1, 2 or 4 and naturally aligned. */
	void (*config_read)(struct pci_function *function, unsigned int offset, void *data, unsigned int len);
	void (*config_write)(struct pci_function *function, unsigned int offset, const void *data, unsigned int len);
	/* The guest wrote the bytes [offset, offset + len) of config: for capabilities that act. May be NULL. */
	void (*config_written)(struct pci_function *function, unsigned int offset, unsigned int len);
	/* BAR bar is now decoded at bars[bar].addr and was not before (old is PCI_UNMAPPED), or it was at old and no
	 * longer is; a move is told as the second, then the first. May be NULL. */
	void (*bar_moved)(struct pci_function *function, unsigned int bar, uint64_t old);
	/* Bus-master enable changed; the removal from the bus is told too. May be NULL. */
	void (*bus_master)(struct pci_function *function, bool on);
	/*
	 * Where a memory BAR should not be placed if there is room elsewhere: the last byte of the first such part of
	 * [addr, addr + size), or beyond; 0: there is none.
	 */
	uint64_t (*avoid)(struct pci_function *function, uint64_t addr, uint64_t size);
};

/* Embedded in the device. Zero it, call pci_function_init, declare capabilities and BARs, then pci_bus_add. */
struct pci_function {
	const struct pci_function_ops *ops;
	const char *name; /* for messages; kept, not copied */
	struct pci_bus *bus;
	uint8_t devfn;
	struct irq_line *intx; /* this function's own line, from pci_bus_add to pci_bus_remove when it has a pin */
	bool intx_level;       /* what pci_set_intx said last */
	bool intx_driven;      /* what the line was told */
	bool complained;       /* of a BAR that could not be decoded */
	struct pci_bar bars[PCI_BARS];
	uint16_t last_cap;               /* offset of the capability added last, 0 for none */
	uint16_t free_cap;               /* first free byte for capabilities */
	uint8_t config[PCI_CONFIG_SIZE]; /* little-endian */
	uint8_t wmask[PCI_CONFIG_SIZE];  /* bits the guest may write */
	const uint8_t *ours; /* as config: bits that are kept there, and saved; NULL: all. The others are a device's own */
};

struct pci_windows {
	uint64_t ecam; /* guest address of bus 0's 1 MiB of ECAM */
	uint64_t mem32, mem32_size;
	uint64_t mem64, mem64_size;
	uint64_t io, io_size;
};

/*
 * Where INTx leads. A function with a pin gets a line of its own, so that one can be wired to eventfds without the
 * others knowing; the lines of one root pin share its GSI, and whoever implements irq_line ORs them.
 */
struct pci_intx_ops {
	/* A new source on the GSI of root pin 0 (INTA) to 3 (INTD): pin p of device d leads to root pin (d + p) % 4. */
	int (*create)(void *opaque, unsigned int root_pin, struct irq_line **ret, struct err *err);
	void (*destroy)(void *opaque, struct irq_line *line);
};

struct pci_bus_config {
	struct pci_windows windows;
	struct bus *mmio;
	struct bus *pio;
	const struct pci_intx_ops *intx; /* NULL: no function has a line */
	void *intx_opaque;
	const struct log *log;
};

/* Makes the bus with a host bridge at 00.0 and answers ECAM. */
int pci_bus_create(const struct pci_bus_config *config, struct pci_bus **ret, struct err *err);
/* All other functions have been removed. NULL is fine. */
void pci_bus_destroy(struct pci_bus *bus);

/*
 * pci_ports.c: configuration mechanism #1 at eight ports from port on, beside ECAM, for as long as pio is there.
 * -EEXIST when they are taken. Writing the first four has no effect by itself.
 */
int pci_ports_add(struct pci_bus *bus, struct bus *pio, uint64_t port, struct err *err);

/* Fills in identity and header; class is the 24-bit class code. */
void pci_function_init(struct pci_function *function, const struct pci_function_ops *ops, const char *name,
		       uint16_t vendor, uint16_t device, uint32_t class_code, uint8_t revision);
/* Subsystem identity. */
void pci_set_subsystem(struct pci_function *function, uint16_t vendor, uint16_t device);
/* Uses interrupt pin INTA (1) to INTD (4). */
void pci_set_pin(struct pci_function *function, uint8_t pin);

/* Adds a capability of len bytes (id and next pointer included) at the next free offset, 4-byte aligned; returns the
 * offset. Its bytes are zero and read-only until the caller fills config and wmask. -ENOSPC when the space is full. */
int pci_add_capability(struct pci_function *function, uint8_t id, uint8_t len);

/* Declares a BAR before pci_bus_add; a MEM64 BAR takes bar and bar + 1. -EINVAL when there can be no such BAR. */
int pci_set_bar(struct pci_function *function, unsigned int bar, enum pci_bar_kind kind, bool prefetch, uint64_t size,
		const struct bus_ops *ops, void *opaque);

/*
 * Puts the function on the bus at devfn, or at the first free device's function 0 when devfn is -1, and places its
 * BARs: 64-bit prefetchable ones in mem64, others in mem32 first, never two in one page, where the function avoids
 * nothing if that can be. Decoding stays off until the guest enables it. -EBUSY taken, -ENOSPC no slot or no window
 * space. May be called while the guest runs.
 */
int pci_bus_add(struct pci_bus *bus, struct pci_function *function, int devfn, struct err *err);
/* Takes it off: BARs are unmapped, the line is lowered and freed. Safe for one that was never added. */
void pci_bus_remove(struct pci_function *function);
/* NULL when nothing is there. */
struct pci_function *pci_bus_function(struct pci_bus *bus, uint8_t devfn);

/* What an access does when there is no hook; hooks call these for the bytes they do not care about. */
void pci_config_read(struct pci_function *function, unsigned int offset, void *data, unsigned int len);
void pci_config_write(struct pci_function *function, unsigned int offset, const void *data, unsigned int len);

/* Raises or lowers this function's pin, command register's INTx disable respected, status bit kept. Any thread. */
void pci_set_intx(struct pci_function *function, bool level);

bool pci_bus_master_enabled(const struct pci_function *function);

/*
 * ---- pci_state.c: saved state ----
 *
 * Of a struct pci_bus *: its windows, which must be the same, and the host bridge. Before the functions.
 */
struct state_table;
extern const struct state_table pci_bus_state;
/*
 * Of a struct pci_function *, as a part of its owner's: what the guest has written into config space, and its BARs. It
 * is loaded into one that has come onto the bus in the same slot and has not been touched; all that a guest cannot
 * write must be as it was. BARs are decoded where the guest had them, which bar_moved is told of; of what else config
 * space now says the owner is told nothing (config_written, bus_master): it looks by itself.
 */
extern const struct state_table pci_function_state;
