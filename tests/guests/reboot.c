/* SPDX-License-Identifier: Apache-2.0 */
/* Says so and resets the machine by the ACPI reset register. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	put("up\n");
	outb(POWER + 2, 1);
	for (;;)
		__asm__ volatile("hlt");
}
