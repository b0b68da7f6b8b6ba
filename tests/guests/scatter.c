/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest with much memory of which it uses a little: writes a number into each page of 256 MiB and says "ready", then reads every 16th page of
 * them again and again, in an order that no readahead foresees, and prints a dot each time; "WRONG" if a number is another one.
 */
#include "tests/guests/guest.h"

#define FIRST 0x4000000ul /* 64 MiB */
#define PAGES 65536ul
#define SPREAD 16ul
#define USED (PAGES / SPREAD)
#define STEP 1597ul /* to the next one; has no factor in common with USED */
#define REST 1000ul

static volatile uint64_t *page(unsigned long number)
{
	return (volatile uint64_t *)(FIRST + number * 4096);
}

static uint64_t pattern(unsigned long number)
{
	return (number + 1) * 0x9e3779b97f4a7c15ul;
}

static void look(void)
{
	for (unsigned long i = 0, at = 0; i < USED; i++, at = (at + STEP) % USED)
		if (*page(at * SPREAD) != pattern(at * SPREAD))
			put("WRONG page\n");
}

void guest_main(const uint32_t *info)
{
	(void)info;
	for (unsigned long i = 0; i < PAGES; i++)
		*page(i) = pattern(i);
	put("ready\n");
	while (!(inl(POWER + 4) & 1)) {
		look();
		put(".");
		for (unsigned long i = 0; i < REST; i++)
			__asm__ volatile("");
	}
}
