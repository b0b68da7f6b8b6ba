/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the panic notifier that it has panicked, if the notifier knows that event. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	if (inb(PVPANIC) & 1)
		outb(PVPANIC, 1);
	for (;;)
		__asm__ volatile("hlt");
}
