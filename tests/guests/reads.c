/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps random reads of 4 KiB in flight on its disk, the first virtio disk on the bus, without interrupts: for tests/bench/run.
 * Prints "at work" after the first ones, and "WRONG" and ends if one fails.
 */
#define VIRTIO_QUEUE_SIZE 128u
#include "tests/guests/virtio.h"

#define DEPTH 32u
#define DESCRIPTORS 3u /* of a read */
#define PIECE 4096u
#define SECTORS_OF_PIECE 8u
#define BAR_AT 0xd0000000u
#define FIRST_READS 1000u
#define NO_NOTIFY 1u /* flag of the used ring; of the other one: no interrupts */
#define DEVICE_CONFIG 4u

static volatile struct virtio_queue q;
static volatile struct {
	uint32_t type, reserved;
	uint64_t sector;
	uint8_t status;
} reads[DEPTH];
static volatile uint8_t data[DEPTH][PIECE] __attribute__((aligned(4096)));
static uint32_t seed = 1, pieces;

/* Numerical Recipes' generator; the upper bits are good enough. */
static uint32_t any_piece(void)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)seed * pieces >> 32);
}

static void prepare(uint16_t number)
{
	uint16_t first = (uint16_t)(number * DESCRIPTORS);

	q.desc[first] = (struct virtio_desc){(uintptr_t)&reads[number], 16, VIRTIO_NEXT, (uint16_t)(first + 1)};
	q.desc[first + 1] = (struct virtio_desc){(uintptr_t)data[number], PIECE, VIRTIO_NEXT | VIRTIO_WRITE, (uint16_t)(first + 2)};
	q.desc[first + 2] = (struct virtio_desc){(uintptr_t)&reads[number].status, 1, VIRTIO_WRITE, 0};
}

static void put_on_queue(uint16_t number)
{
	reads[number].sector = (uint64_t)any_piece() * SECTORS_OF_PIECE;
	reads[number].status = 0xff;
	q.avail.ring[q.avail.idx % VIRTIO_QUEUE_SIZE] = (uint16_t)(number * DESCRIPTORS);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q.avail.idx++;
}

static void kick(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(q.used.flags & NO_NOTIFY))
		virtio_write16(q.doorbell, q.number);
}

static int start(void)
{
	struct virtio disk;

	if (!virtio_find(&disk, VIRTIO_BLK, BAR_AT))
		return 0;
	virtio_begin(&disk, VIRTIO_BLK_FLUSH);
	virtio_add_queue(&disk, &q, 0, VIRTIO_NO_VECTOR);
	q.avail.flags = NO_NOTIFY;
	virtio_run(&disk);
	pieces = read32(virtio_structure(disk.config, DEVICE_CONFIG)) / SECTORS_OF_PIECE;
	for (uint16_t i = 0; i < DEPTH; i++) {
		prepare(i);
		put_on_queue(i);
	}
	kick();
	return 1;
}

/* Whether all that have been completed succeeded; they begin again elsewhere. */
static int go_on(uint16_t *seen)
{
	while (*seen == q.used.idx)
		__asm__ volatile("pause");
	for (; *seen != q.used.idx; ++*seen) {
		uint16_t number = (uint16_t)(q.used.ring[*seen % VIRTIO_QUEUE_SIZE].id / DESCRIPTORS);

		if (reads[number].status)
			return 0;
		put_on_queue(number);
	}
	kick();
	return 1;
}

void guest_main(const uint32_t *info)
{
	uint32_t told = 0;
	uint16_t seen = 0;

	(void)info;
	if (!start()) {
		put("no disk\n");
		return;
	}
	while (go_on(&seen)) {
		if (!told && seen >= FIRST_READS) {
			put("at work\n");
			told = 1;
		}
	}
	put("WRONG\n");
}
