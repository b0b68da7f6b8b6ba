/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes numbers all over its disk, again and again, and reads them back: each sector must have the number that was written there
 * last. What a migration has lost, or brought too late, is found. The first virtio disk on the bus, one request at a time, without
 * interrupts. Ends at the power button and tells how many passes there were, and how many sectors were wrong.
 */
#include "tests/guests/guest.h"

#define SECTORS 8192u /* that are written: 4 MiB */
#define STEP 4099u    /* to the next one; has no factor in common with SECTORS */
#define QUEUE_SIZE 4u
#define BAR_AT 0xd0000000u /* in the window for memory below 4 GiB */

/* struct virtio_pci_common_cfg */
#define FEATURE_SELECT 0x08
#define FEATURES 0x0c
#define STATUS 0x14
#define QUEUE_SELECT 0x16
#define QUEUE_LENGTH 0x18
#define QUEUE_ENABLE 0x1c
#define QUEUE_DESC 0x20

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static struct {
	struct desc desc[QUEUE_SIZE];
	struct {
		uint16_t flags, idx, ring[QUEUE_SIZE], event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[QUEUE_SIZE];
		uint16_t event;
	} used __attribute__((aligned(4)));
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	uint64_t data[64];
	uint8_t status;
} volatile q __attribute__((aligned(4096)));

static uintptr_t common, notify;
static uint32_t wrong, passes;

/* ---- the device ---- */

static void write16(uintptr_t addr, uint16_t value)
{
	*(volatile uint16_t *)addr = value;
}

static void write8(uintptr_t addr, uint8_t value)
{
	*(volatile uint8_t *)addr = value;
}

/* Where the structure of this type is: of the capabilities that virtio has, types 1 and 2 are wanted. */
static uintptr_t structure(uintptr_t config, uint32_t type)
{
	for (uint32_t cap = read32(config + 0x34) & 0xfc; cap; cap = read32(config + cap) >> 8 & 0xfc) {
		uintptr_t bar = config + 0x10 + 4 * (read32(config + cap + 4) & 7);

		if ((read32(config + cap) & 0xff) == 9 && read32(config + cap) >> 24 == type)
			return (read32(bar) & ~15u) + read32(config + cap + 8);
	}
	return 0;
}

static int find_disk(void)
{
	for (uintptr_t device = 0; device < 32; device++) {
		uintptr_t config = ECAM + (device << 15);

		if (read32(config) != 0x10421af4)
			continue;
		write32(config + 4, 0);
		write32(config + 0x10, BAR_AT); /* it lies above what a tiny guest maps */
		write32(config + 0x14, 0);
		write32(config + 4, 6);
		common = structure(config, 1);
		notify = structure(config, 2);
		return common && notify;
	}
	return 0;
}

/* VERSION_1 and FLUSH, without which each write would be on the disk before it is answered. */
static void start(void)
{
	const uintptr_t rings[] = {(uintptr_t)&q.desc, (uintptr_t)&q.avail, (uintptr_t)&q.used};

	write8(common + STATUS, 0);
	write8(common + STATUS, 3);
	for (uint32_t half = 0; half < 2; half++) {
		write32(common + FEATURE_SELECT, half);
		write32(common + FEATURES, half ? 1 : 1 << 9);
	}
	write8(common + STATUS, 11);
	write16(common + QUEUE_SELECT, 0);
	write16(common + QUEUE_LENGTH, QUEUE_SIZE);
	for (uint32_t i = 0; i < 3; i++) {
		write32(common + QUEUE_DESC + 8 * i, (uint32_t)rings[i]);
		write32(common + QUEUE_DESC + 8 * i + 4, 0);
	}
	write16(common + QUEUE_ENABLE, 1);
	write8(common + STATUS, 15);
}

/* One request from start to end: type 0 reads the sector, 1 writes it. */
static int ask(uint32_t type, uint64_t sector)
{
	uint16_t before = q.avail.idx;

	q.header.type = type;
	q.header.sector = sector;
	q.status = 0xff;
	q.desc[0] = (struct desc){(uintptr_t)&q.header, sizeof(q.header), 1, 1};
	q.desc[1] = (struct desc){(uintptr_t)q.data, sizeof(q.data), type ? 1 : 3, 2};
	q.desc[2] = (struct desc){(uintptr_t)&q.status, 1, 2, 0};
	q.avail.ring[before % QUEUE_SIZE] = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q.avail.idx = before + 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	write16(notify, 0);
	while (q.used.idx == before)
		__asm__ volatile("pause");
	return q.status == 0;
}

/* ---- the work ---- */

static void visit(uint32_t sector)
{
	uint64_t before = passes ? (uint64_t)sector << 32 | passes : 0, now = (uint64_t)sector << 32 | (passes + 1);

	if (!ask(0, sector) || q.data[0] != before || q.data[63] != before) {
		wrong++;
		put("WRONG sector ");
		put_hex(sector, 8);
		put("\n");
	}
	q.data[0] = q.data[63] = now;
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
	if (!find_disk()) {
		put("no disk\n");
		return;
	}
	start();
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
