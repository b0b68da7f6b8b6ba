/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says on "p" who it is, in one line: its generation ID, vmclock's generation number, disruption marker and sequence number, the
 * events that wait for it, and the time of day in ns since 1970 that it computes from vmclock and its counter. It ends on "e".
 */
#include "tests/guests/guest.h"

#define VMCLOCK 0xfe000ul
#define VMGENID 0xff000ul
#define EVENTS (POWER + 4)

static volatile uint64_t turns;

static uint64_t read64(uintptr_t addr)
{
	return *(volatile uint64_t *)addr;
}

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (uint64_t)high << 32;
}

/* As Linux' vmclock driver does it. */
static uint64_t time_of_day(void)
{
	unsigned __int128 part = (unsigned __int128)(rdtsc() - read64(VMCLOCK + 40)) * read64(VMCLOCK + 48);

	part = (part >> *(volatile uint8_t *)(VMCLOCK + 39)) + read64(VMCLOCK + 80);
	return (read64(VMCLOCK + 72) + (uint64_t)(part >> 64)) * 1000000000 +
	       (uint64_t)((unsigned __int128)(uint64_t)part * 1000000000 >> 64);
}

static void put_field(const char *name, uint64_t value, int digits)
{
	put(name);
	put_hex(value, digits);
}

static void say(void)
{
	uint64_t now = time_of_day();

	put_field("id ", __builtin_bswap64(read64(VMGENID)), 16);
	put_field("", __builtin_bswap64(read64(VMGENID + 8)), 16);
	put_field(" generation ", read64(VMCLOCK + 104), 16);
	put_field(" disruption ", read64(VMCLOCK + 16), 16);
	put_field(" sequence ", read32(VMCLOCK + 12), 8);
	put_field(" events ", inl(EVENTS), 8);
	put_field(" time ", now, 16);
	put(" end\n");
}

void guest_main(const uint32_t *info)
{
	uint8_t c = 0;

	put(read32(VMCLOCK) == 0x4b4c4356 ? "ready\n" : "no vmclock\n");
	while (c != 'e') {
		while (!(inb(COM1 + 5) & 1))
			turns++; /* memory that is written all the time */
		c = inb(COM1);
		if (c == 'p')
			say();
	}
}
