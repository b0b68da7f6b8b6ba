/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of pages of guest memory: a bitmap for each region. Used by one thread at a time; the regions must not change
 * while the set exists.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/migration/memory_sender.h"

struct page_set;

/* full: all pages are in it, else none. */
int page_set_create(const struct guest_memory *memory, bool full, struct page_set **ret, struct err *err);
/* NULL is fine. */
void page_set_destroy(struct page_set *set);

/* The regions in ascending order, with their bitmaps, which may be changed. */
const struct memory_marks *page_set_regions(const struct page_set *set, size_t *count);

uint64_t page_set_count(const struct page_set *set);

/* Adds the pages of [gpa, gpa + size) whose bits are set (NULL: all of them); what is not in one region is left out. */
void page_set_add(struct page_set *set, uint64_t gpa, uint64_t size, const unsigned long *bitmap);
/* Adds all pages of another set of the same memory. */
void page_set_join(struct page_set *set, const struct page_set *more);
void page_set_clear(struct page_set *set);

/*
 * As one bitmap, region after region: bit n % 8 of byte n / 8 is page n. *len bytes, which the caller frees; NULL if
 * there is no memory.
 */
uint8_t *page_set_flatten(const struct page_set *set, size_t *len);
