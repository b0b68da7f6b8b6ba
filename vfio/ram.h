/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM as devices have it: regions, mapped in pieces, of which some may be released to the host. vfio/space.c
 * keeps it and maps by it, vfio/dirty_log.c asks by it; it knows no containers.
 */
#pragma once

#include "core/guest_memory.h"

struct prefault;

struct vfio_ram_region {
	struct guest_region region;
	unsigned long *released; /* a bit for each piece; NULL: none ever was */
	bool populated;
	struct prefault *coming; /* being populated */
};

#define VFIO_MAX_RAM 64

struct vfio_ram {
	uint64_t piece; /* bytes, a power of two, counted from the start of a region */
	struct vfio_ram_region regions[VFIO_MAX_RAM]; /* ascending */
	size_t count;
};

/* The place of a new region, or NULL when there are VFIO_MAX_RAM. Regions move when one is inserted or removed. */
struct vfio_ram_region *vfio_ram_insert(struct vfio_ram *ram, const struct guest_region *region);
void vfio_ram_remove(struct vfio_ram *ram, struct vfio_ram_region *region);
/* The region that begins at gpa, or NULL. */
struct vfio_ram_region *vfio_ram_find(struct vfio_ram *ram, uint64_t gpa);

uint64_t vfio_ram_end(const struct vfio_ram_region *region);
/* Pieces in a region. */
uint64_t vfio_ram_pieces(const struct vfio_ram *ram, const struct vfio_ram_region *region);
/* The end of the piece that gpa is in. */
uint64_t vfio_ram_piece_end(const struct vfio_ram *ram, const struct vfio_ram_region *region, uint64_t gpa);

bool vfio_ram_is_released(const struct vfio_ram *ram, const struct vfio_ram_region *region, uint64_t gpa);
/* Makes room for the marks of a region: 0 or -ENOMEM. */
int vfio_ram_may_release(const struct vfio_ram *ram, struct vfio_ram_region *region);
/* Marks whole pieces, after vfio_ram_may_release. */
void vfio_ram_mark(const struct vfio_ram *ram, struct vfio_ram_region *region, uint64_t gpa, uint64_t size,
		   bool released);

/*
 * The first mapped run of RAM in [*gpa, end): *gpa and *size are set to it. whole: it is made larger on both sides
 * until it cuts no map. False when there is none.
 */
bool vfio_ram_next_run(const struct vfio_ram *ram, uint64_t *gpa, uint64_t end, uint64_t *size, bool whole);
