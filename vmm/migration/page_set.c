/* SPDX-License-Identifier: Apache-2.0 */
/* See page_set.h. */
#include "vmm/migration/page_set.h"

#include "core/bitmap.h"

struct page_set {
	size_t count;
	struct memory_marks regions[];
};

static size_t page_set_longs(const struct memory_marks *region)
{
	return bitmap_longs(region->size / GUEST_PAGE_SIZE);
}

int page_set_create(const struct guest_memory *memory, bool full, struct page_set **ret, struct err *err)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);
	struct page_set *set = calloc(1, sizeof(*set) + count * sizeof(set->regions[0]));
	bool good = set;

	for (size_t i = 0; good && i < count; i++) {
		struct memory_marks *region = &set->regions[set->count++];

		*region = (struct memory_marks){regions[i].gpa, regions[i].size, NULL};
		region->bitmap = calloc(page_set_longs(region), sizeof(*region->bitmap));
		good = region->bitmap;
		if (good && full)
			bitmap_set_range(region->bitmap, 0, region->size / GUEST_PAGE_SIZE);
	}
	if (!good) {
		page_set_destroy(set);
		return err_sys(err, -ENOMEM, "the list of pages");
	}
	*ret = set;
	return 0;
}

void page_set_destroy(struct page_set *set)
{
	for (size_t i = 0; set && i < set->count; i++)
		free(set->regions[i].bitmap);
	free(set);
}

const struct memory_marks *page_set_regions(const struct page_set *set, size_t *count)
{
	*count = set->count;
	return set->regions;
}

uint64_t page_set_count(const struct page_set *set)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < set->count; i++)
		pages += bitmap_count(set->regions[i].bitmap, page_set_longs(&set->regions[i]));
	return pages;
}

void page_set_add(struct page_set *set, uint64_t gpa, uint64_t size, const unsigned long *bitmap)
{
	const struct memory_marks *region = set->regions, *end = region + set->count;
	size_t first, count = size / GUEST_PAGE_SIZE;

	while (region < end && gpa - region->gpa >= region->size)
		region++;
	if (region == end || size > region->size - (gpa - region->gpa))
		return;
	first = (gpa - region->gpa) / GUEST_PAGE_SIZE;
	if (bitmap)
		bitmap_or_at(region->bitmap, first, bitmap, count);
	else
		bitmap_set_range(region->bitmap, first, count);
}

void page_set_join(struct page_set *set, const struct page_set *more)
{
	for (size_t i = 0; i < more->count; i++)
		page_set_add(set, more->regions[i].gpa, more->regions[i].size, more->regions[i].bitmap);
}

void page_set_clear(struct page_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		memset(set->regions[i].bitmap, 0, page_set_longs(&set->regions[i]) * sizeof(unsigned long));
}

uint8_t *page_set_flatten(const struct page_set *set, size_t *len)
{
	uint64_t pages = 0, at = 0;
	unsigned long *flat;

	for (size_t i = 0; i < set->count; i++)
		pages += set->regions[i].size / GUEST_PAGE_SIZE;
	flat = calloc(bitmap_longs(pages) ?: 1, sizeof(*flat));
	for (size_t i = 0; flat && i < set->count; i++) {
		bitmap_or_at(flat, at, set->regions[i].bitmap, set->regions[i].size / GUEST_PAGE_SIZE);
		at += set->regions[i].size / GUEST_PAGE_SIZE;
	}
	for (size_t i = 0; flat && i < bitmap_longs(pages); i++)
		flat[i] = htole64(flat[i]);
	*len = (pages + 7) / 8;
	return (uint8_t *)flat;
}
