/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose disks and network cards come and go: it drives every one on the bus, those from the start and those that come,
 * and lets go of one when it is asked, unless its command line is "keeps". It tells what happens, and the size of a disk or the
 * link of a card at the first look and whenever the device says that it has changed. On each disk it writes a count into the
 * first sector of each pass, and finds it there, and tells the first request that fails; by each card it sends a packet as
 * often as the one before is gone. A disk of 2222 sectors is a sign to reset the machine. Ends at the power button.
 */
#include "tests/guests/virtio.h"

#define SLOTS 32u
#define BARS_AT 0xd0000000u
#define BAR_STEP 0x10000u
#define ISR_CONFIG 2u
#define SIGN 2222u
#define VANISHED 0xffffffffu
#define PACKET 76u /* with the header of 12 bytes */

struct device {
	struct virtio virtio;
	uintptr_t isr, device;
	uint32_t type; /* 0: none */
	int failed;
	uint32_t sectors, passes; /* of a disk */
};

static struct device devices[SLOTS];
static volatile struct virtio_queue queues[SLOTS][2]; /* of a card: to the guest, from it */
static volatile uint8_t packet[PACKET];
static int signs; /* to reset the machine */
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

/* What the config space says that may change. */
static void look(struct device *device, uint32_t slot)
{
	if (device->type == VIRTIO_NET) {
		say("link", slot);
		put(read32(device->device + 4) >> 16 & 1 ? " up\n" : " down\n");
		return;
	}
	device->sectors = read32(device->device);
	say("size", slot);
	put(" ");
	put_decimal(device->sectors);
	put("\n");
	signs |= device->sectors == SIGN;
}

static void start(uint32_t slot)
{
	uintptr_t config = ECAM + ((uintptr_t)slot << 15);
	uint32_t type = virtio_is(config, VIRTIO_BLK) ? VIRTIO_BLK : VIRTIO_NET;
	struct device *device = &devices[slot];

	if (!virtio_is(config, type))
		return;
	*device = (struct device){.type = type};
	virtio_place(&device->virtio, config, BARS_AT + slot * BAR_STEP);
	device->isr = virtio_structure(config, 3);
	device->device = virtio_structure(config, 4);
	for (uint32_t i = 0; i < sizeof(queues[slot]); i++)
		((volatile uint8_t *)&queues[slot])[i] = 0;
	virtio_begin(&device->virtio, type == VIRTIO_BLK ? VIRTIO_BLK_FLUSH : VIRTIO_NET_STATUS);
	virtio_add_queue(&device->virtio, &queues[slot][0], 0, VIRTIO_NO_VECTOR);
	if (type == VIRTIO_NET)
		virtio_add_queue(&device->virtio, &queues[slot][1], 1, VIRTIO_NO_VECTOR);
	virtio_run(&device->virtio);
	say(type == VIRTIO_BLK ? "disk" : "card", slot);
	put("\n");
	look(device, slot);
}

static void let_go(uint32_t slot)
{
	struct device *device = &devices[slot];

	say("lets go", slot);
	put("\n");
	if (device->type)
		virtio_write8(device->virtio.common + VIRTIO_STATUS, 0);
	device->type = 0;
	outb((uint16_t)(POWER + 12 + slot / 8), (uint8_t)(1u << slot % 8));
}

/* One request from start to end; 0: it failed, or the disk was taken away meanwhile. */
static int ask(uint32_t slot, uint32_t type)
{
	volatile struct virtio_queue *q = &queues[slot][0];

	virtio_blk_submit(q, &request, type, 0);
	while (virtio_busy(q))
		if (id_of(slot) == VANISHED)
			return 0;
	if (request.status && !devices[slot].failed++) {
		say("fails", slot);
		put("\n");
	}
	return request.status == 0;
}

/* Whether it is as written. The image may have been replaced since the pass before, but not between the write and the read. */
static int is_right(struct device *disk, uint32_t slot)
{
	uint32_t now = ++disk->passes;

	request.data[0] = (uint64_t)slot << 32 | now;
	return !disk->sectors || !ask(slot, 1) || !ask(slot, 0) || request.data[0] == ((uint64_t)slot << 32 | now);
}

/* To everybody, of a type that is for experiments. */
static void send(uint32_t slot)
{
	volatile struct virtio_queue *q = &queues[slot][1];

	if (virtio_busy(q))
		return;
	for (uint32_t i = 0; i < 6; i++)
		packet[12 + i] = 0xff;
	packet[18] = 2;
	packet[24] = 0x88;
	packet[25] = 0xb5;
	q->desc[0] = (struct virtio_desc){(uintptr_t)packet, sizeof(packet), 0, 0};
	virtio_submit(q);
}

static void visit(uint32_t slot)
{
	struct device *device = &devices[slot];
	int wrong = device->type == VIRTIO_BLK && !is_right(device, slot);
	uint32_t isr = read32(device->isr); /* which clears it */

	if (wrong && !(isr & ISR_CONFIG))
		put("WRONG\n");
	if (device->type == VIRTIO_NET)
		send(slot);
	if (id_of(slot) == VANISHED) {
		device->type = 0;
		say("lost", slot);
		put("\n");
	} else if (isr & ISR_CONFIG) {
		look(device, slot);
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
			if (devices[slot].type)
				visit(slot);
		}
		if (signs)
			outb(POWER + 2, 1);
	}
	put("ends\n");
}
