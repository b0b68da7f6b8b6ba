/* SPDX-License-Identifier: Apache-2.0 */
/* Says so and resets the machine by the ACPI reset register; with the command line "wait" when something is typed. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	const char *cmdline = (const char *)(uintptr_t)info[6]; /* Xen's hvm_start_info */

	put("up\n");
	while (*cmdline == 'w' && !(inb(COM1 + 5) & 1)) {
	}
	outb(POWER + 2, 1);
	for (;;)
		__asm__ volatile("hlt");
}
