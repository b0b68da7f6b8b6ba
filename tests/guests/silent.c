/* SPDX-License-Identifier: Apache-2.0 */
/* Writes to a port whose writes KVM collects, forgets what, and halts for good: it never leaves to user space. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	uint32_t address = 0x8000a5a4;

	(void)info;
	__asm__ volatile("outl %0, %1\n\txorl %0, %0" : "+a"(address) : "Nd"((uint16_t)0xcf8) : "memory");
	for (;;)
		__asm__ volatile("cli\n\thlt");
}
