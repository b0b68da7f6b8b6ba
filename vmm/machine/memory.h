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
 * Where RAM's content comes from; without one it is empty. Either fd is a file of exactly RAM's size, regions in address
 * order, which is mapped privately: nothing is read that nobody touches, and writes stay in this process. Or fd is -1,
 * and fill is called with memory of the configured kind, before anybody else knows of it.
 */
struct ram_source {
	int fd; /* not owned; outlives the RAM */
	/* Puts the contents into [host, host + size); may be NULL. */
	int (*fill)(void *opaque, void *host, uint64_t size, struct err *err);
	bool on_touch; /* fill has only arranged that a page is brought in when it is touched (userfaultfd) */
	void *opaque;
};

/*
 * Allocates the memory and adds its regions. shared: as a memfd; the caller resolves TOGGLE_AUTO. source: NULL: empty
 * RAM; -ENOTSUP: its file cannot be mapped as memory of the configured kind, and has to be copied. Prefaults if
 * configured, and logs progress if that takes more than a second.
 */
int ram_create(const struct memory_config *config, bool shared, const struct ram_source *source,
	       struct guest_memory *memory, const struct log *log, struct ram **ret, struct err *err);
/* Removes the regions from memory. NULL is fine. */
void ram_destroy(struct ram *ram);

/* The file that it maps, or -1. */
int ram_file(const struct ram *ram);

/* The first address above all RAM, and not below 4 GiB. */
uint64_t ram_end(const struct ram *ram);
