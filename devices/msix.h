/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X for a PCI function (PCI 3.0 section 6.8.2): the capability, the vector table and pending bits, and one
 * eventfd per vector that the device kicks. While a vector is unmasked its eventfd is connected to the guest's
 * message; while it is masked a kick stays in the eventfd and shows as pending.
 *
 * A passed-through device wants to know when a vector comes into use (struct msix_ops): vectors are created the first
 * time the guest unmasks them. Later masking needs nothing of the device: the vector alone is disconnected.
 *
 * All calls may come from any thread. The ops are called inside, under the lock, and may call back.
 */
#pragma once

#include "devices/pci.h"

#define MSIX_MAX_VECTORS 2048u
#define MSIX_TABLE_ENTRY 16u

struct msix;

struct msix_ops {
	/* Vector index has its eventfd (fd) and is unmasked for the first time since enable. Nonzero: it stays masked
	 * until the guest touches it again. */
	int (*used)(void *opaque, unsigned int index, int fd);
	/* MSI-X as a whole was switched on (before any vector is used) or off, which releases every vector. */
	void (*enabled)(void *opaque, bool on);
};

struct msix_config {
	unsigned int vectors; /* 1 to 2048 */
	unsigned int table_bar;
	uint32_t table_offset; /* bytes into the BAR, 8-byte aligned */
	unsigned int pba_bar;
	uint32_t pba_offset;
	struct msi_controller *msi;
	const struct msix_ops *ops; /* may be NULL */
	void *opaque;
	const struct log *log;
};

/*
 * Adds the capability to function (not yet on a bus). The owner's BAR ops forward table and PBA accesses below.
 * -EINVAL for a layout that cannot be, -ENOSPC when the config space is full.
 */
int msix_create(struct pci_function *function, const struct msix_config *config, struct msix **ret, struct err *err);
/* As msix_create for a capability that the config space has already at cap (a passed-through device's). */
int msix_adopt(struct pci_function *function, unsigned int cap, const struct msix_config *config, struct msix **ret,
	       struct err *err);
/* NULL is fine. Nobody kicks any more. */
void msix_destroy(struct msix *msix);

/* The function's config_written hook calls this; it looks at the control word alone. */
void msix_config_written(struct msix *msix);

/*
 * Accesses to the table and the pending bits; offset counts from their start. Beyond their end reads give zero. Writes
 * have len 4 or 8 and are aligned, others are ignored, as are writes to the pending bits.
 */
void msix_table_read(struct msix *msix, uint64_t offset, void *data, unsigned int len);
void msix_table_write(struct msix *msix, uint64_t offset, const void *data, unsigned int len);
void msix_pba_read(struct msix *msix, uint64_t offset, void *data, unsigned int len);
/* Bytes of the table and of the pending bit array. */
uint64_t msix_table_size(const struct msix *msix);
uint64_t msix_pba_size(const struct msix *msix);

/* The eventfd that fires vector index, created if need be; -errno when it cannot be had. Stays valid until destroy. */
int msix_vector_fd(struct msix *msix, unsigned int index);
/* MSI-X is enabled by the guest. */
bool msix_enabled(const struct msix *msix);

/*
 * Saved state, of a struct msix *, as a part of its owner's: the table, which vectors are in use, and the interrupts that
 * wait in one. Loaded behind the function's (pci_function_state), whose control word it follows: ops hear of what is
 * switched on and of each vector in use, which are connected as they were; nothing is delivered yet.
 */
struct state_table;
extern const struct state_table msix_state;
/* Kicks every vector that can deliver: when the guest goes on behind a load, for what the source's kernel had taken from an
 * eventfd and not yet brought to a vCPU. A driver takes one interrupt too many as nothing, one too few forever. */
void msix_kick(struct msix *msix);
