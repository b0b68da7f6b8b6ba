/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes numbers all over its disk, again and again, and reads them back: each sector must have the number that was written there
 * last. What a migration has lost, or brought too late, is found. The first virtio disk on the bus, one request at a time, without
 * interrupts. Ends at the power button and tells how many passes there were, and how many sectors were wrong.
 */
#include "tests/guests/virtio.h"

#define SECTORS 8192u /* that are written: 4 MiB */
#define STEP 4099u    /* to the next one; has no factor in common with SECTORS */
#define BAR_AT 0xd0000000u /* in the window for memory below 4 GiB, above what a tiny guest maps */

static volatile struct virtio_queue q;
static volatile struct virtio_blk_request request;
static uint32_t wrong, passes;

/* ---- the device ---- */

static int start(void)
{
	struct virtio disk;

	if (!virtio_find(&disk, VIRTIO_BLK, BAR_AT))
		return 0;
	virtio_begin(&disk, VIRTIO_BLK_FLUSH);
	virtio_add_queue(&disk, &q, 0, VIRTIO_NO_VECTOR);
	virtio_run(&disk);
	return 1;
}

/* One request from start to end: type 0 reads the sector, 1 writes it. */
static int ask(uint32_t type, uint64_t sector)
{
	virtio_blk_submit(&q, &request, type, sector);
	while (virtio_busy(&q))
		__asm__ volatile("pause");
	return request.status == 0;
}

/* ---- the work ---- */

static void visit(uint32_t sector)
{
	uint64_t before = passes ? (uint64_t)sector << 32 | passes : 0, now = (uint64_t)sector << 32 | (passes + 1);

	if (!ask(0, sector) || request.data[0] != before || request.data[63] != before) {
		wrong++;
		put("WRONG sector ");
		put_hex(sector, 8);
		put("\n");
	}
	request.data[0] = request.data[63] = now;
	if (!ask(1, sector)) {
		wrong++;
		put("WRONG write\n");
	}
}

static int pressed(void)
{
	return inl(POWER + 4) & 1;
}

void guest_main(const uint32_t *info)
{
	uint32_t sector = 0;

	(void)info;
	if (!start()) {
		put("no disk\n");
		return;
	}
	put("begins\n");
	while (!pressed()) {
		visit(sector);
		sector = (sector + STEP) % SECTORS;
		if (sector % 1024 == 0)
			put(".");
		passes += !sector;
	}
	put("\npasses ");
	put_hex(passes, 8);
	put(", wrong ");
	put_hex(wrong, 8);
	put("\n");
}
