/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X of a PCI function (PCI 3.0 section 6.8.2): the capability, the vector table and pending bits, and an eventfd
 * for each vector, which the device kicks. While a vector is unmasked, its eventfd is connected to the guest's message;
 * while it is masked, a kick stays in the eventfd and its pending bit is set.
 *
 * A vector is created when the guest first unmasks it, and a passed-through device is notified then (struct msix_ops).
 * Masking it later does not concern the device: only the vector is disconnected.
 *
 * Any thread. The ops are called under the lock and may call back.
 */
#pragma once

#include "devices/pci.h"

#define MSIX_MAX_VECTORS 2048u
#define MSIX_TABLE_ENTRY 16u

struct msix;

struct msix_ops {
	/* Vector index, with eventfd fd, is unmasked for the first time since MSI-X was enabled. Nonzero: it is not
	 * connected until the guest writes it again. */
	int (*used)(void *opaque, unsigned int index, int fd);
	/* MSI-X was enabled (before any vector is used) or disabled, which releases all vectors. */
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
 * Adds the capability to function, before it is on a bus. The owner's BAR ops forward table and PBA accesses to the
 * calls below. -EINVAL: the layout is invalid; -ENOSPC: the config space is full.
 */
int msix_create(struct pci_function *function, const struct msix_config *config, struct msix **ret, struct err *err);
/* As msix_create, for a capability that is already in the config space at cap (a passed-through device). */
int msix_adopt(struct pci_function *function, unsigned int cap, const struct msix_config *config, struct msix **ret,
	       struct err *err);
/* After the last kick. NULL is fine. */
void msix_destroy(struct msix *msix);

/* Called by the function's config_written; reads only the control word. */
void msix_config_written(struct msix *msix);

/*
 * Accesses to the table and the pending bits; offset is relative to their start. Bytes beyond their end read as zero.
 * Writes other than aligned ones of 4 or 8 bytes are ignored, and so are writes to the pending bits.
 */
void msix_table_read(struct msix *msix, uint64_t offset, void *data, unsigned int len);
void msix_table_write(struct msix *msix, uint64_t offset, const void *data, unsigned int len);
void msix_pba_read(struct msix *msix, uint64_t offset, void *data, unsigned int len);
/* Bytes of the table and of the pending bit array. */
uint64_t msix_table_size(const struct msix *msix);
uint64_t msix_pba_size(const struct msix *msix);

/* The eventfd of vector index, created if necessary, or -errno. Valid until destroy. */
int msix_vector_fd(struct msix *msix, unsigned int index);
/* Whether the guest has enabled MSI-X. */
bool msix_enabled(const struct msix *msix);

/*
 * Saved state of a struct msix *, a part of its owner's: the table, the vectors in use, and pending interrupts. Loaded
 * after the function's (pci_function_state), whose control word it uses: calls ops for MSI-X and for each vector in
 * use, and connects them as they were; nothing is delivered yet.
 */
struct state_table;
extern const struct state_table msix_state;
/* Kicks all connected vectors, when the guest continues after a load: the source's kernel may have read an eventfd and
 * not yet delivered the interrupt. A driver tolerates an additional interrupt, but may wait for ever for a lost one. */
void msix_kick(struct msix *msix);
