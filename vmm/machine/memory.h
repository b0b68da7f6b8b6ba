/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's RAM: host memory of the configured kind, laid out around the hole below 4 GiB and added to a struct
 * guest_memory. The default, private anonymous memory with transparent huge pages, gives the fastest start.
 */
#pragma once

#include "core/guest_memory.h"
#include "core/log.h"
#include "vmm/config/config.h"

struct ram;

/*
 * Allocates the memory and adds its regions. shared: as a memfd; the caller resolves TOGGLE_AUTO. Prefaults if
 * configured, and logs progress if that takes more than a second.
 */
int ram_create(const struct memory_config *config, bool shared, struct guest_memory *memory, const struct log *log,
	       struct ram **ret, struct err *err);
/* Removes the regions from memory. NULL is fine. */
void ram_destroy(struct ram *ram);

/* The first address above all RAM, and not below 4 GiB. */
uint64_t ram_end(const struct ram *ram);
