/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes to known pages: for each digit typed, every page from 16 MiB up to 24 MiB whose number, counted from there, is a
 * multiple of the digit. Prints "ready", then "written" each time; 'e' ends it.
 */
#include "tests/guests/guest.h"

#define FIRST 0x1000000ul
#define PAGES 2048ul

void guest_main(const uint32_t *info)
{
	uint8_t c = 0;

	(void)info;
	put("ready\n");
	while (c != 'e') {
		while (!(inb(COM1 + 5) & 1)) {
		}
		c = inb(COM1);
		for (unsigned long page = 0; c > '0' && c <= '9' && page < PAGES; page += c - '0')
			*(volatile uint8_t *)(FIRST + page * 4096) += 1;
		put("written\n");
	}
}
