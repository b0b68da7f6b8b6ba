/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives every softdev (tests/testhost/softdev) that was passed through, and checks every byte: registers, DMA both
 * ways and the bytes around it, the message at the end of a job, an address that is not there. A line for each.
 *
 * With "work" on the command line the devices then write without end, each to a range of its own that no vCPU touches.
 * A 'c' on the serial port stops them, checks every byte of what they should have written so far and lets them go on; a
 * 'q' ends the guest. With "slow" as well, a pass over the range takes them more than a second.
 */
#include "tests/guests/guest.h"
#include "tests/testhost/softdev/regs.h"

#define VECTOR 0x41
#define MAX_DEVICES 8
#define RANGE 0x100000ul /* of memory for each device */

static volatile uint32_t messages;

static struct {
	uintptr_t bar, memory;
	unsigned long len;
	uint64_t seed;
} devices[MAX_DEVICES];
static unsigned int count;

__attribute__((interrupt)) static void on_message(struct frame *frame)
{
	(void)frame;
	messages++;
	end_of_interrupt();
}

static uint64_t get(uintptr_t bar, enum softdev_reg reg)
{
	return *(volatile uint64_t *)(bar + 8 * (unsigned int)reg);
}

static void set(uintptr_t bar, enum softdev_reg reg, uint64_t value)
{
	*(volatile uint64_t *)(bar + 8 * (unsigned int)reg) = value;
}

static void start(uintptr_t bar, uint32_t command, uintptr_t at, unsigned long len, uint64_t seed, uint64_t passes)
{
	set(bar, SOFTDEV_REG_ADDRESS, at);
	set(bar, SOFTDEV_REG_LENGTH, len);
	set(bar, SOFTDEV_REG_SEED, seed);
	set(bar, SOFTDEV_REG_PASSES, passes);
	set(bar, SOFTDEV_REG_COMMAND, command);
}

static int run(uintptr_t bar, uint32_t command, uintptr_t at, unsigned long len, uint64_t seed, uint64_t passes)
{
	start(bar, command, at, len, seed, passes);
	while (get(bar, SOFTDEV_REG_STATUS) == SOFTDEV_BUSY)
		__asm__ volatile("pause");
	return get(bar, SOFTDEV_REG_STATUS) == SOFTDEV_DONE;
}

/* Bytes of [from, to) of the pattern that begins at memory which are not as this pass leaves them. */
static unsigned long wrong(uintptr_t memory, uint64_t seed, uint64_t pass, unsigned long from, unsigned long to)
{
	unsigned long n = 0;

	for (; from < to; from++) {
		unsigned char want;

		softdev_pattern(seed, pass, from, &want, 1);
		n += *(volatile unsigned char *)(memory + from) != want;
	}
	return n;
}

static void fill(uintptr_t at, unsigned long len, unsigned char value)
{
	for (unsigned long i = 0; i < len; i++)
		*(volatile unsigned char *)(at + i) = value;
}

static unsigned long differ(uintptr_t a, uintptr_t b, unsigned long len)
{
	unsigned long n = 0;

	for (unsigned long i = 0; i < len; i++)
		n += *(volatile unsigned char *)(a + i) != *(volatile unsigned char *)(b + i);
	return n;
}

static void try_pattern(uintptr_t bar, uintptr_t memory)
{
	fill(memory, 0x10000, 0xa5);
	fill(memory + 0x10000, 0x10000, 0xa5);
	tell("pattern", run(bar, SOFTDEV_PATTERN, memory + 1001, 23456, 42, 3) && get(bar, SOFTDEV_REG_PASS) == 3 &&
				wrong(memory + 1001, 42, 2, 0, 23456) == 0);
	tell("nothing around it", differ(memory, memory + 0x10000, 1001) == 0 &&
				  differ(memory + 1001 + 23456, memory + 0x10000, 0x10000 - 1001 - 23456) == 0);
}

static void try_copy(uintptr_t bar, uintptr_t memory)
{
	for (unsigned long i = 0; i < 0x8000; i++)
		*(volatile unsigned char *)(memory + i) = (unsigned char)(i * 2654435761u >> 13);
	fill(memory + 0x20000, 0x8000, 0);
	tell("copy", run(bar, SOFTDEV_LOAD, memory, 0x8000, 0, 1) &&
			     run(bar, SOFTDEV_STORE, memory + 0x20003, 0x7ff0, 0, 1) &&
			     differ(memory, memory + 0x20003, 0x7ff0) == 0);
}

static void try_messages(uintptr_t config, uintptr_t bar, uintptr_t memory)
{
	uint32_t before = messages, works = (uint32_t)enable_msi(config, VECTOR);

	for (uint32_t i = 1; i <= 3 && works; i++) {
		start(bar, SOFTDEV_PATTERN | SOFTDEV_INTERRUPT, memory, 4096, i, 1);
		works = (uint32_t)reaches(&messages, before + i);
	}
	tell("message", (int)works);
}

static void try_fault(uintptr_t bar)
{
	tell("fault", !run(bar, SOFTDEV_PATTERN, 0x7f12345678, 100, 1, 1) &&
			      get(bar, SOFTDEV_REG_FAULT) == 0x7f12345678 &&
			      get(bar, SOFTDEV_REG_STATUS) == SOFTDEV_FAILED);
}

static void try_device(uintptr_t config)
{
	uintptr_t bar = read32(config + 0x10) & ~15u, memory = 0x1000000 + count * RANGE;

	write32(config + 4, 6);
	tell("registers", get(bar, SOFTDEV_REG_MAGIC) == SOFTDEV_MAGIC && get(bar, SOFTDEV_REG_STATUS) == SOFTDEV_IDLE);
	try_pattern(bar, memory);
	try_copy(bar, memory);
	try_messages(config, bar, memory);
	try_fault(bar);
	devices[count].bar = bar;
	devices[count].memory = memory + 7;
	devices[count].len = RANGE / 4 - 4099;
	devices[count++].seed = 1000;
}

static void begin_work(unsigned int interval)
{
	for (unsigned int i = 0; i < count; i++) {
		set(devices[i].bar, SOFTDEV_REG_INTERVAL, interval);
		start(devices[i].bar, SOFTDEV_PATTERN, devices[i].memory, devices[i].len, ++devices[i].seed, 0);
	}
	put("at work\n");
}

static void check_work(void)
{
	for (unsigned int i = 0; i < count; i++)
		set(devices[i].bar, SOFTDEV_REG_COMMAND, SOFTDEV_STOP);
	for (unsigned int i = 0; i < count; i++) {
		uint64_t pass = get(devices[i].bar, SOFTDEV_REG_PASS);
		uint64_t position = get(devices[i].bar, SOFTDEV_REG_POSITION);
		unsigned long n = wrong(devices[i].memory, devices[i].seed, pass, 0, position);

		if (pass)
			n += wrong(devices[i].memory, devices[i].seed, pass - 1, position, devices[i].len);
		put("device ");
		put_hex(i, 1);
		put(" passes ");
		put_hex(pass, 8);
		put(" wrong bytes ");
		put_hex(n, 8);
		put(get(devices[i].bar, SOFTDEV_REG_STATUS) == SOFTDEV_DONE ? " stopped\n" : " FAILED\n");
	}
}

static int has_word(const char *text, const char *word)
{
	for (; text && *text; text++) {
		unsigned int i = 0;

		while (word[i] && text[i] == word[i])
			i++;
		if (!word[i])
			return 1;
	}
	return 0;
}

void guest_main(const uint32_t *info)
{
	const char *cmdline = (const char *)(uintptr_t)info[6]; /* Xen's hvm_start_info */
	uint8_t key = 'c';

	set_gate(VECTOR, on_message);
	enable_interrupts();
	for (uintptr_t device = 0; device < 32 && count < MAX_DEVICES; device++)
		if (read32(ECAM + (device << 15)) == ((uint32_t)SOFTDEV_DEVICE << 16 | SOFTDEV_VENDOR))
			try_device(ECAM + (device << 15));
	put("devices ");
	put_hex(count, 1);
	put("\n");
	while (has_word(cmdline, "work") && key != 'q') {
		begin_work(has_word(cmdline, "slow") ? 20000 : 200);
		do {
			while (!(inb(COM1 + 5) & 1))
				__asm__ volatile("pause");
			key = inb(COM1);
		} while (key != 'c' && key != 'q');
		check_work();
	}
}
