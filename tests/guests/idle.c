/* SPDX-License-Identifier: Apache-2.0 */
/* Does nothing at all, for good: what such a guest costs, or its migration, is the VMM's own doing. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	(void)info;
	put("waiting\n");
	for (;;)
		__asm__ volatile("cli\n\thlt");
}
