/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives the registers of the first virtio disk on MMIO as no driver should, and as one does: what is not there, accesses of
 * other widths, steps out of order, queues that are nowhere; then it reads the disk, by an interrupt of the IOAPIC.
 */
#include "tests/guests/virtio.h"

#define IOAPIC 0xfec00000ul
#define VECTOR 0x40
#define GSI 5 /* of the first device */

#define NEEDS_RESET 0x40u

static volatile struct virtio_queue q;
static volatile struct virtio_blk_request request;
static struct virtio disk;
static volatile uint32_t interrupts, reasons;

static uint32_t get(uint32_t offset)
{
	return read32(disk.mmio + offset);
}

static void set(uint32_t offset, uint32_t value)
{
	write32(disk.mmio + offset, value);
}

__attribute__((interrupt)) static void on_disk(struct frame *frame)
{
	uint32_t status = get(MMIO_INTERRUPT_STATUS);

	(void)frame;
	set(MMIO_INTERRUPT_ACK, status);
	reasons |= status;
	interrupts++;
	end_of_interrupt();
}

/* An edge of the pin is this vector of the first vCPU, and no 8259 has it, too. */
static void route(uint32_t pin, uint8_t vector)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	write32(IOAPIC, 0x11 + 2 * pin);
	write32(IOAPIC + 0x10, 0);
	write32(IOAPIC, 0x10 + 2 * pin);
	write32(IOAPIC + 0x10, vector);
}

/* ---- what is refused ---- */

static int other_widths_do_nothing(void)
{
	volatile uint8_t *bytes = (volatile uint8_t *)disk.mmio;
	volatile uint16_t *words = (volatile uint16_t *)disk.mmio;

	bytes[MMIO_STATUS] = 1;
	words[MMIO_STATUS / 2] = 1;
	*(volatile uint64_t *)(disk.mmio + MMIO_STATUS) = 1;
	*(volatile uint32_t *)(disk.mmio + MMIO_STATUS + 1) = 1;
	return bytes[0] == 0 && words[0] == 0 && *(volatile uint64_t *)disk.mmio == 0 &&
	       *(volatile uint32_t *)(disk.mmio + 2) == 0 && get(MMIO_STATUS) == 0;
}

static int steps_come_in_order(void)
{
	int works;

	set(MMIO_STATUS, 15);
	works = get(MMIO_STATUS) == 3;
	set(MMIO_STATUS, 0);
	set(MMIO_FEATURES_SELECT, 1);
	set(MMIO_FEATURES, ~0u); /* not offered */
	set(MMIO_STATUS, 11);
	works &= get(MMIO_STATUS) == 3;
	set(MMIO_STATUS, 0x100);
	works &= get(MMIO_STATUS) == 3;
	set(MMIO_STATUS, 0);
	return works && get(MMIO_STATUS) == 0;
}

static int no_queue_is_there(uint32_t number)
{
	set(MMIO_QUEUE_SELECT, number);
	set(MMIO_QUEUE_LENGTH, 4);
	set(MMIO_QUEUE_DESC, 0x1000);
	set(MMIO_QUEUE_READY, 1);
	set(MMIO_QUEUE_NOTIFY, number);
	return get(MMIO_QUEUE_MAX) == 0 && get(MMIO_QUEUE_READY) == 0;
}

/* Ready twice, by other numbers, taken back and set up anew; then a ring that is nowhere. */
static int games_with_ready(void)
{
	int works;

	virtio_begin(&disk, VIRTIO_BLK_FLUSH);
	set(MMIO_QUEUE_SELECT, 0);
	set(MMIO_QUEUE_READY, 2);
	works = get(MMIO_QUEUE_READY) == 0;
	set(MMIO_QUEUE_READY, 1);
	set(MMIO_QUEUE_READY, 1);
	set(MMIO_QUEUE_READY, 0);
	works &= get(MMIO_QUEUE_READY) == 0;
	set(MMIO_QUEUE_DESC + 4, 0xffffffff);
	set(MMIO_QUEUE_READY, 1);
	virtio_run(&disk);
	works &= get(MMIO_STATUS) == (15 | NEEDS_RESET);
	set(MMIO_STATUS, 0);
	return works && get(MMIO_STATUS) == 0 && get(MMIO_QUEUE_READY) == 0;
}

/* ---- what works ---- */

static void start(void)
{
	virtio_begin(&disk, VIRTIO_BLK_FLUSH);
	virtio_add_queue(&disk, &q, 0, VIRTIO_NO_VECTOR);
	q.avail.idx = q.used.idx = q.used.event = q.avail.event = 0;
	virtio_run(&disk);
}

static int reads(uint64_t sector)
{
	request.data[0] = 0;
	virtio_blk_submit(&q, &request, 0, sector);
	for (uint32_t i = 0; i < 20000000 && virtio_busy(&q); i++)
		__asm__ volatile("pause");
	return request.status == 0 && request.data[0] == 0x6b736964; /* "disk" */
}

static int interrupts_come(void)
{
	start();
	for (uint32_t i = 1; i < 20; i++)
		if (!reads(0) || !reaches(&interrupts, i))
			return 0;
	return reasons == 1 && get(MMIO_INTERRUPT_STATUS) == 0;
}

/* The device works on no queue any more, and says so; after a reset it does. */
static int a_queue_is_taken_back(void)
{
	uint32_t before = interrupts;
	int works;

	set(MMIO_QUEUE_READY, 0);
	works = get(MMIO_QUEUE_READY) == 0 && get(MMIO_STATUS) == (15 | NEEDS_RESET) && reaches(&interrupts, before + 1) &&
		reasons & 2;
	set(MMIO_STATUS, 0);
	start();
	return works && reads(0);
}

void guest_main(const uint32_t *info)
{
	(void)info;
	if (!virtio_find_mmio(&disk, VIRTIO_BLK)) {
		put("no disk\n");
		return;
	}
	tell("the first page", disk.mmio == MMIO_AT(1) && get(MMIO_VERSION) == 2);
	tell("a page without a device", read32(MMIO_AT(MMIO_DEVICES)) == 0xffffffff);
	tell("the config space", get(MMIO_CONFIG) == 2048 && get(MMIO_CONFIG + 4) == 0 &&
				 *(volatile uint8_t *)(disk.mmio + MMIO_CONFIG + 1) == 8);
	tell("nothing by other widths", other_widths_do_nothing());
	tell("the order of steps", steps_come_in_order());
	tell("no queue 64", no_queue_is_there(64));
	tell("no queue 65536", no_queue_is_there(65536));
	tell("no queue -1", no_queue_is_there(~0u));
	tell("ready and back", games_with_ready());
	set_gate(VECTOR, on_disk);
	route(GSI, VECTOR);
	enable_interrupts();
	tell("reads with interrupts", interrupts_come());
	tell("a queue that is taken back", a_queue_is_taken_back());
}
