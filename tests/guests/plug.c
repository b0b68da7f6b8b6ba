/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose disks come and go: it drives every virtio disk on the bus, those from the start and those that come, and
 * lets go of one when it is asked, unless its command line is "keeps". It tells what happens, and the size of a disk at the
 * first look and whenever the disk says that it has changed. On each disk it writes a count into the first sector of each
 * pass, and finds it there, and tells the first request that fails. A disk of 2222 sectors is a sign to reset the machine. Ends at the power button.
 */
#include "tests/guests/virtio.h"

#define SLOTS 32u
#define BARS_AT 0xd0000000u
#define BAR_STEP 0x10000u
#define ISR_CONFIG 2u
#define SIGN 2222u
#define VANISHED 0xffffffffu

struct disk {
	struct virtio virtio;
	uintptr_t isr, device;
	int there, failed;
	uint32_t sectors, passes;
};

static struct disk disks[SLOTS];
static volatile struct virtio_queue queues[SLOTS];
static volatile struct virtio_blk_request request;

static void say(const char *what, uint32_t slot)
{
	put(what);
	put(" ");
	put_hex(slot, 2);
}

static void put_decimal(uint32_t value)
{
	char digits[12];
	int at = sizeof(digits) - 1;

	digits[at] = 0;
	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	put(digits + at);
}

static uint32_t id_of(uint32_t slot)
{
	return read32(ECAM + ((uintptr_t)slot << 15));
}

static void tell_size(struct disk *disk, uint32_t slot)
{
	disk->sectors = read32(disk->device);
	say("size", slot);
	put(" ");
	put_decimal(disk->sectors);
	put("\n");
	if (disk->sectors == SIGN)
		outb(POWER + 2, 1);
}

static void start(uint32_t slot)
{
	uintptr_t config = ECAM + ((uintptr_t)slot << 15);
	struct disk *disk = &disks[slot];

	if (!virtio_is(config, VIRTIO_BLK))
		return;
	*disk = (struct disk){.there = 1};
	virtio_place(&disk->virtio, config, BARS_AT + slot * BAR_STEP);
	disk->isr = virtio_structure(config, 3);
	disk->device = virtio_structure(config, 4);
	for (uint32_t i = 0; i < sizeof(queues[slot]); i++)
		((volatile uint8_t *)&queues[slot])[i] = 0;
	virtio_begin(&disk->virtio, VIRTIO_BLK_FLUSH);
	virtio_add_queue(&disk->virtio, &queues[slot], 0, VIRTIO_NO_VECTOR);
	virtio_run(&disk->virtio);
	say("disk", slot);
	put("\n");
	tell_size(disk, slot);
}

static void let_go(uint32_t slot)
{
	struct disk *disk = &disks[slot];

	say("lets go", slot);
	put("\n");
	if (disk->there)
		virtio_write8(disk->virtio.common + VIRTIO_STATUS, 0);
	disk->there = 0;
	outb((uint16_t)(POWER + 12 + slot / 8), (uint8_t)(1u << slot % 8));
}

/* One request from start to end; 0: it failed, or the disk was taken away meanwhile. */
static int ask(uint32_t slot, uint32_t type)
{
	volatile struct virtio_queue *q = &queues[slot];

	virtio_blk_submit(q, &request, type, 0);
	while (virtio_busy(q))
		if (id_of(slot) == VANISHED)
			return 0;
	if (request.status && !disks[slot].failed++) {
		say("fails", slot);
		put("\n");
	}
	return request.status == 0;
}

/* The image may have been replaced since the pass before, but not between the write and the read. */
static void visit(uint32_t slot)
{
	struct disk *disk = &disks[slot];
	uint32_t now = ++disk->passes, isr;
	int wrong;

	request.data[0] = (uint64_t)slot << 32 | now;
	wrong = disk->sectors && ask(slot, 1) && ask(slot, 0) && request.data[0] != ((uint64_t)slot << 32 | now);
	isr = read32(disk->isr); /* which clears it */
	if (wrong && !(isr & ISR_CONFIG))
		put("WRONG\n");
	if (id_of(slot) == VANISHED) {
		disk->there = 0;
		say("lost", slot);
		put("\n");
	} else if (isr & ISR_CONFIG) {
		tell_size(disk, slot);
	}
}

void guest_main(const uint32_t *info)
{
	const char *cmdline = (const char *)(uintptr_t)info[6];
	int keeps = *cmdline == 'k';

	for (uint32_t slot = 0; slot < SLOTS; slot++)
		start(slot);
	put("begins\n");
	while (!(inl(POWER + 4) & 1)) {
		/* In this order: of one that has come and is to go already, both are seen, and it is not started. */
		uint32_t down = inl(POWER + 12), up = inl(POWER + 8);

		for (uint32_t slot = 0; slot < SLOTS; slot++) {
			if (down >> slot & 1 && !keeps)
				let_go(slot);
			else if (up >> slot & 1)
				start(slot);
			if (disks[slot].there)
				visit(slot);
		}
	}
	put("ends\n");
}
