/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps a passed-through NVMe busy with DMA (NVM Express base specification 2.0, sections 3 and 4): commands that each
 * write a page. Prints "under load" when the first ones are done, and ends when the device is gone. With the command
 * line "reboot" it resets the machine after some thousand, in the middle of others.
 */
#include "tests/guests/guest.h"

#define NVME_CLASS 0x010802u
#define CONTROLLER 0x14
#define STATUS 0x1c
#define QUEUE_SIZES 0x24
#define SUBMISSION_BASE 0x28
#define COMPLETION_BASE 0x30
#define SUBMISSION_DOORBELL 0x1000
#define COMPLETION_DOORBELL 0x1004
#define ENTRIES 64u
#define IDENTIFY 0x06u
#define IDENTIFY_CONTROLLER 1u
#define SUBMISSIONS 0x200000ul
#define COMPLETIONS 0x210000ul
#define PAGES 0x400000ul

static uintptr_t bar;

static void set_base(uintptr_t reg, uint32_t low)
{
	write32(bar + reg, low);
	write32(bar + reg + 4, 0);
}

static int wait_ready(uint32_t ready)
{
	uint32_t status;

	do
		status = read32(bar + STATUS);
	while (status != 0xffffffff && (status & 1) != ready);
	return status != 0xffffffff;
}

static void start_queue(void)
{
	write32(bar + CONTROLLER, 0);
	wait_ready(0);
	for (uint32_t i = 0; i < ENTRIES; i++)
		write32(COMPLETIONS + i * 16 + 12, 0); /* the phase before the first round */
	write32(bar + QUEUE_SIZES, (ENTRIES - 1) << 16 | (ENTRIES - 1));
	set_base(SUBMISSION_BASE, SUBMISSIONS);
	set_base(COMPLETION_BASE, COMPLETIONS);
	write32(bar + CONTROLLER, 4u << 20 | 6u << 16 | 1);
	wait_ready(1);
}

/* Half of the entries are in flight; the phase of a completion changes each time round. False: the device is gone. */
static int run(uint32_t count)
{
	uint32_t tail = 0, head = 0, phase = 1;

	for (uint32_t i = 0; i < count; i++) {
		volatile uint32_t *command = (volatile uint32_t *)(SUBMISSIONS + tail * 64);
		uintptr_t completion = COMPLETIONS + head * 16;

		command[0] = IDENTIFY | tail << 16;
		command[6] = (uint32_t)(PAGES + tail * 4096);
		command[10] = IDENTIFY_CONTROLLER;
		tail = (tail + 1) % ENTRIES;
		write32(bar + SUBMISSION_DOORBELL, tail);
		if (i < ENTRIES / 2)
			continue;
		while ((read32(completion + 12) >> 16 & 1) != phase)
			if (read32(bar + STATUS) == 0xffffffff)
				return 0;
		head = (head + 1) % ENTRIES;
		phase ^= !head;
		write32(bar + COMPLETION_DOORBELL, head);
	}
	return 1;
}

static void reset(void)
{
	outb(POWER + 2, 1);
	for (;;)
		__asm__ volatile("hlt");
}

void guest_main(const uint32_t *info)
{
	uintptr_t config = ECAM;

	while (config < ECAM + (31ul << 15) && read32(config + 8) >> 8 != NVME_CLASS)
		config += 1ul << 15;
	if (read32(config + 8) >> 8 != NVME_CLASS) {
		put("no device\n");
		return;
	}
	bar = read32(config + 0x10) & ~15u;
	write32(config + 4, 6);
	start_queue();
	if (run(ENTRIES)) {
		put("under load\n");
		start_queue();
		if (run(*(const char *)(uintptr_t)info[6] == 'r' ? 4000 : UINT32_MAX))
			reset();
	}
	put("gone\n");
}
