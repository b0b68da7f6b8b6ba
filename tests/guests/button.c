/* SPDX-License-Identifier: Apache-2.0 */
/* Waits for the power button, as an ACPI guest would hear of it, and switches off; counts aloud meanwhile. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	put("waiting\n");
	while (!(inl(POWER + 4) & 1))
		__asm__ volatile("pause");
	put("pressed\n");
}
