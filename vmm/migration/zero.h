/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of zeros: which of guest memory were never touched, told without reading them (reading would bring some of them
 * into being), and whether one that is there is all zero.
 */
#pragma once

#include "core/guest_memory.h"

struct zero_map;

/*
 * Learns how the regions are backed, once: their mappings stay as they are as long as the map lives. What cannot be learnt here
 * (no /proc) only means that pages have to be read.
 */
int zero_map_create(const struct guest_memory *memory, struct zero_map **ret, struct err *err);
void zero_map_destroy(struct zero_map *map); /* NULL is fine */

#define ZERO_MAP_PAGES 512u

/*
 * Sets the bits of those of the `count` pages (at most ZERO_MAP_PAGES) from offset in the region that are zero because nothing was
 * ever stored there; others are left as they are. A page that is touched meanwhile may be told either way.
 */
void zero_map_absent(const struct zero_map *map, const struct guest_region *region, uint64_t offset, size_t count,
		     unsigned long *absent);

/* The 4096 bytes are zero. */
bool zero_page(const void *page);
