/* SPDX-License-Identifier: Apache-2.0 */
/* Listens to its keyboard, prints what comes until Ctrl is let go, and resets the machine by the keyboard controller. */
#include "tests/guests/guest.h"

#define DATA 0x60
#define COMMAND 0x64

static uint8_t next(void)
{
	while (!(inb(COMMAND) & 1))
		__asm__ volatile("pause");
	return inb(DATA);
}

void guest_main(const uint32_t *info)
{
	uint8_t before = 0, key = 0;

	(void)info;
	outb(COMMAND, 0xaa);
	tell("the self test", next() == 0x55);
	outb(COMMAND, 0x60);
	outb(DATA, 0x05);
	put("listens\n");
	while (before != 0xf0 || key != 0x14) {
		before = key;
		key = next();
		put_hex(key, 2);
	}
	put("\n");
	outb(COMMAND, 0xfe);
	for (;;)
		__asm__ volatile("hlt");
}
