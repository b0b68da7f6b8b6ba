/* SPDX-License-Identifier: Apache-2.0 */
/* See ram.h. */
#include "vfio/ram.h"

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

uint64_t vfio_ram_pieces(const struct vfio_ram_region *region)
{
	return (region->region.size + VFIO_RAM_PIECE - 1) / VFIO_RAM_PIECE;
}

static uint64_t vfio_ram_piece_start(const struct vfio_ram_region *region, uint64_t gpa)
{
	return gpa - (gpa - region->region.gpa) % VFIO_RAM_PIECE;
}

uint64_t vfio_ram_piece_end(const struct vfio_ram_region *region, uint64_t gpa)
{
	return MIN(vfio_ram_piece_start(region, gpa) + VFIO_RAM_PIECE, vfio_ram_end(region));
}

bool vfio_ram_next_run(const struct vfio_ram *ram, uint64_t *gpa, uint64_t end, uint64_t *size, bool whole)
{
	for (size_t i = 0; i < ram->count; i++) {
		const struct vfio_ram_region *region = &ram->regions[i];
		uint64_t from = MAX(*gpa, region->region.gpa), to = MIN(end, vfio_ram_end(region));

		if (from >= to)
			continue;
		*gpa = whole ? vfio_ram_piece_start(region, from) : from;
		*size = (whole ? vfio_ram_piece_end(region, to - 1) : to) - *gpa;
		return true;
	}
	return false;
}
