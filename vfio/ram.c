/* SPDX-License-Identifier: Apache-2.0 */
/* See ram.h. */
#include "vfio/ram.h"

#include "core/bitmap.h"

/* ---- Regions ---- */

struct vfio_ram_region *vfio_ram_insert(struct vfio_ram *ram, const struct guest_region *region)
{
	size_t at = ram->count;

	if (at == VFIO_MAX_RAM)
		return NULL;
	for (; at && ram->regions[at - 1].region.gpa > region->gpa; at--)
		ram->regions[at] = ram->regions[at - 1];
	ram->regions[at] = (struct vfio_ram_region){.region = *region};
	ram->count++;
	return &ram->regions[at];
}

void vfio_ram_remove(struct vfio_ram *ram, struct vfio_ram_region *region)
{
	free(region->released);
	ram->count--;
	memmove(region, region + 1, (size_t)(&ram->regions[ram->count] - region) * sizeof(*region));
}

struct vfio_ram_region *vfio_ram_find(struct vfio_ram *ram, uint64_t gpa)
{
	for (size_t i = 0; i < ram->count; i++)
		if (ram->regions[i].region.gpa == gpa)
			return &ram->regions[i];
	return NULL;
}

/* ---- Pieces ---- */

uint64_t vfio_ram_end(const struct vfio_ram_region *region)
{
	return region->region.gpa + region->region.size;
}

uint64_t vfio_ram_pieces(const struct vfio_ram *ram, const struct vfio_ram_region *region)
{
	return (region->region.size + ram->piece - 1) / ram->piece;
}

static uint64_t vfio_ram_piece_of(const struct vfio_ram *ram, const struct vfio_ram_region *region, uint64_t gpa)
{
	return (gpa - region->region.gpa) / ram->piece;
}

static uint64_t vfio_ram_piece_start(const struct vfio_ram *ram, const struct vfio_ram_region *region, uint64_t piece)
{
	return region->region.gpa + piece * ram->piece;
}

uint64_t vfio_ram_piece_end(const struct vfio_ram *ram, const struct vfio_ram_region *region, uint64_t gpa)
{
	return MIN(vfio_ram_piece_start(ram, region, vfio_ram_piece_of(ram, region, gpa) + 1), vfio_ram_end(region));
}

bool vfio_ram_is_released(const struct vfio_ram *ram, const struct vfio_ram_region *region, uint64_t gpa)
{
	return region->released && bitmap_test(region->released, vfio_ram_piece_of(ram, region, gpa));
}

int vfio_ram_may_release(const struct vfio_ram *ram, struct vfio_ram_region *region)
{
	if (!region->released)
		region->released = calloc(bitmap_longs(vfio_ram_pieces(ram, region)), sizeof(*region->released));
	return region->released ? 0 : -ENOMEM;
}

void vfio_ram_mark(const struct vfio_ram *ram, struct vfio_ram_region *region, uint64_t gpa, uint64_t size,
		   bool released)
{
	for (uint64_t at = gpa; at < gpa + size; at = vfio_ram_piece_end(ram, region, at)) {
		uint64_t piece = vfio_ram_piece_of(ram, region, at);

		if (released)
			bitmap_set(region->released, piece);
		else
			region->released[piece / BITS_PER_LONG] &= ~(1ul << piece % BITS_PER_LONG);
	}
}

bool vfio_ram_next_run(const struct vfio_ram *ram, uint64_t *gpa, uint64_t end, uint64_t *size, bool whole)
{
	for (size_t i = 0; i < ram->count; i++) {
		const struct vfio_ram_region *region = &ram->regions[i];
		uint64_t from = MAX(*gpa, region->region.gpa), limit = MIN(end, vfio_ram_end(region)), to;

		while (from < limit && vfio_ram_is_released(ram, region, from))
			from = vfio_ram_piece_end(ram, region, from);
		if (from >= limit)
			continue;
		for (to = from; to < limit && !vfio_ram_is_released(ram, region, to);)
			to = vfio_ram_piece_end(ram, region, to);
		if (whole)
			from = vfio_ram_piece_start(ram, region, vfio_ram_piece_of(ram, region, from));
		else
			to = MIN(to, limit);
		*gpa = from;
		*size = to - from;
		return true;
	}
	return false;
}
