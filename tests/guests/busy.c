/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk and a network at work, both by MSI-X: each round writes a sector, reads it back and sends a packet. Prints "at work" after
 * the first rounds and a dot now and then. With the command line "wait" it only waits after the first rounds, and each packet that
 * arrives starts another round and is answered by a byte on the serial port. "WRONG" if a sector is not what was written.
 */
#include "tests/guests/virtio.h"

#define DISK_AT 0xd0000000u
#define NET_AT 0xd0010000u
#define DISK_VECTOR 0x40
#define RX_VECTOR 0x41
#define TX_VECTOR 0x42
#define SECTORS 1024u
#define NET_HEADER 12u
#define PACKET 64u
#define FIRST_ROUNDS 16u

static struct virtio disk, net;
static volatile struct virtio_queue disk_queue, rx, tx;
static volatile struct virtio_blk_request request;
static volatile uint8_t received[2048], packet[NET_HEADER + PACKET];
static volatile uint32_t done, sent, arrived;

/* ---- interrupts ---- */

__attribute__((interrupt)) static void on_disk(struct frame *frame)
{
	(void)frame;
	done++;
	end_of_interrupt();
}

__attribute__((interrupt)) static void on_tx(struct frame *frame)
{
	(void)frame;
	sent++;
	end_of_interrupt();
}

__attribute__((interrupt)) static void on_rx(struct frame *frame)
{
	(void)frame;
	arrived++;
	end_of_interrupt();
}

/* Halts until the queue has nothing in flight: the interrupt that says so may not come between the look and the halt. */
static void wait_for(const volatile struct virtio_queue *q)
{
	__asm__ volatile("cli");
	while (virtio_busy(q))
		__asm__ volatile("sti\n\thlt\n\tcli");
	__asm__ volatile("sti");
}

/* ---- devices ---- */

static void offer_buffer(void)
{
	rx.desc[0] = (struct virtio_desc){(uintptr_t)received, sizeof(received), VIRTIO_WRITE, 0};
	virtio_submit(&rx);
}

static int start(void)
{
	if (!virtio_find(&disk, VIRTIO_BLK, DISK_AT) || !virtio_find(&net, VIRTIO_NET, NET_AT))
		return 0;
	set_gate(DISK_VECTOR, on_disk);
	set_gate(RX_VECTOR, on_rx);
	set_gate(TX_VECTOR, on_tx);
	enable_interrupts();
	virtio_begin(&disk, VIRTIO_BLK_FLUSH);
	virtio_begin(&net, 0);
	if (!virtio_enable_msix(&disk, 0, DISK_VECTOR) || !virtio_enable_msix(&net, 0, RX_VECTOR) ||
	    !virtio_enable_msix(&net, 1, TX_VECTOR))
		return 0;
	virtio_add_queue(&disk, &disk_queue, 0, 0);
	virtio_add_queue(&net, &rx, 0, 0);
	virtio_add_queue(&net, &tx, 1, 1);
	virtio_run(&disk);
	virtio_run(&net);
	offer_buffer();
	return 1;
}

static int ask(uint32_t type, uint64_t sector)
{
	virtio_blk_submit(&disk_queue, &request, type, sector);
	wait_for(&disk_queue);
	return request.status == 0;
}

/* An Ethernet frame to everybody, of a type that is for experiments. */
static void send_packet(void)
{
	for (uint32_t i = 0; i < 6; i++)
		packet[NET_HEADER + i] = 0xff;
	packet[NET_HEADER + 6] = 2;
	packet[NET_HEADER + 12] = 0x88;
	packet[NET_HEADER + 13] = 0xb5;
	tx.desc[0] = (struct virtio_desc){(uintptr_t)packet, sizeof(packet), 0, 0};
	virtio_submit(&tx);
	wait_for(&tx);
}

/* ---- the work ---- */

static void work(uint32_t round)
{
	uint32_t sector = round % SECTORS;
	int works;

	request.data[0] = request.data[63] = round;
	works = ask(1, sector);
	request.data[0] = request.data[63] = 0;
	works = works && ask(0, sector);
	if (!works || request.data[0] != round || request.data[63] != round)
		put("WRONG sector\n");
	send_packet();
}

static int pressed(void)
{
	return inl(POWER + 4) & 1;
}

static void wait_for_packet(void)
{
	__asm__ volatile("cli");
	while (virtio_busy(&rx))
		__asm__ volatile("sti\n\thlt\n\tcli");
	__asm__ volatile("sti");
	offer_buffer();
}

void guest_main(const uint32_t *info)
{
	int waits = *(const char *)(uintptr_t)info[6] == 'w';
	uint32_t round = 0;

	if (!start()) {
		put("no disk or no network\n");
		return;
	}
	while (round < FIRST_ROUNDS)
		work(++round);
	put("at work\n");
	while (!pressed()) {
		if (waits)
			wait_for_packet();
		work(++round);
		if (waits || round % 256 == 0)
			put(".");
	}
	put("\nended\n");
}
