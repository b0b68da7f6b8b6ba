/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's RAM: host memory of the kind that was asked for, laid out around the hole below 4 GiB and given to a
 * struct guest_memory. What each kind costs on the way to the first instruction decides the default: private anonymous
 * memory with transparent huge pages.
 */
#pragma once

#include "core/guest_memory.h"
#include "core/log.h"
#include "vmm/config/config.h"

struct ram;

/*
 * Reserves the memory and adds its regions. shared: a memfd is wanted by something, TOGGLE_AUTO being decided by the
 * caller. Prefaults on request, with a line of progress when that takes over a second.
 */
int ram_create(const struct memory_config *config, bool shared, struct guest_memory *memory, const struct log *log,
	       struct ram **ret, struct err *err);
/* Takes the regions out of memory again. NULL is fine. */
void ram_destroy(struct ram *ram);

/* First address above all RAM, and not below 4 GiB. */
uint64_t ram_end(const struct ram *ram);
