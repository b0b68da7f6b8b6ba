/* SPDX-License-Identifier: Apache-2.0 */
/* Gives back what is typed on the serial port, in capitals, until a full stop. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	uint8_t c = 0;

	put("ready\n");
	while (c != '.') {
		while (!(inb(COM1 + 5) & 1)) {
		}
		c = inb(COM1);
		outb(COM1, c >= 'a' && c <= 'z' ? c - 32 : c);
	}
	put("\n");
}
