/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds pages of zeros: pages of guest memory that were never touched, without reading them (a read would allocate some
 * of them), and pages whose contents are zero. In memory that is a private mapping of a file, finds the pages that are
 * this process's own.
 */
#pragma once

#include "core/guest_memory.h"

struct zero_map;

/*
 * Reads once how the regions are backed; their mappings must not change while the map exists. If something cannot be
 * determined (no /proc), pages have to be read.
 */
int zero_map_create(const struct guest_memory *memory, struct zero_map **ret, struct err *err);
void zero_map_destroy(struct zero_map *map); /* NULL is fine */

#define ZERO_MAP_PAGES 512u

/*
 * Sets the bits of those of the `count` pages (at most ZERO_MAP_PAGES) from offset in the region that are zero because
 * they were never written; other bits do not change. For a page that is touched meanwhile, either answer is possible.
 * Any thread, as zero_map_next.
 */
void zero_map_absent(struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		     unsigned long *absent);

/*
 * Sets the bits of those of the `count` pages (any number) that may differ from the file below the region
 * (region->base): this process's copies, written or about to be, and pages that were given back. All of them if that
 * cannot be determined or there is no file.
 */
void zero_map_own(struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		  unsigned long *own);

/*
 * Where the first page at or behind offset in the region is that zero_map_absent may not report; the region's size if
 * there is none. Skips memory that was never touched faster than zero_map_absent.
 */
uint64_t zero_map_next(struct zero_map *map, const struct guest_region *region, uint64_t offset);

/* Whether the 4096 bytes are zero. */
bool zero_page(const void *page);

/* Pages first to end - 1, which are all zero or all not zero. */
struct zero_run {
	size_t first, end;
	bool zero;
};

/*
 * The next run of marked pages, from run->end: of the count pages at host, those in marks are looked at, and those in
 * absent are zero and not read. False if none is left.
 */
bool zero_next_run(const void *host, size_t count, const unsigned long *marks, const unsigned long *absent,
		   struct zero_run *run);
