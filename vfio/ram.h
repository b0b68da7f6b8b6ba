/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM as devices have it: regions, each mapped in pieces. vfio/space.c keeps the list and maps by it,
 * vfio/dirty_log.c queries by it; it knows no containers.
 */
#pragma once

#include "core/guest_memory.h"

struct prefault;

struct vfio_ram_region {
	struct guest_region region;
	bool populated; /* and nothing was given back since */
	struct prefault *prefault; /* being populated */
};

#define VFIO_MAX_RAM 64
/* Bytes that are mapped at once, from the start of a region on, so that a long mapping can report its progress. */
#define VFIO_RAM_PIECE GIB(1)

struct vfio_ram {
	struct vfio_ram_region regions[VFIO_MAX_RAM]; /* ascending */
	size_t count;
};

/* The entry of a new region, or NULL if there are VFIO_MAX_RAM. Entries move when one is inserted or removed. */
struct vfio_ram_region *vfio_ram_insert(struct vfio_ram *ram, const struct guest_region *region);
void vfio_ram_remove(struct vfio_ram *ram, struct vfio_ram_region *region);
/* The region that begins at gpa, or NULL. */
struct vfio_ram_region *vfio_ram_find(struct vfio_ram *ram, uint64_t gpa);

uint64_t vfio_ram_end(const struct vfio_ram_region *region);
/* Pieces in a region. */
uint64_t vfio_ram_pieces(const struct vfio_ram_region *region);
/* The end of the piece that gpa is in. */
uint64_t vfio_ram_piece_end(const struct vfio_ram_region *region, uint64_t gpa);

/*
 * The first run of RAM in [*gpa, end), within one region: sets *gpa and *size. whole: extends it on both sides to whole
 * pieces. False when there is none.
 */
bool vfio_ram_next_run(const struct vfio_ram *ram, uint64_t *gpa, uint64_t end, uint64_t *size, bool whole);
