/* SPDX-License-Identifier: Apache-2.0 */
/* Prints vendor and device of every function 0 that answers on bus 0. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	for (uintptr_t device = 0; device < 32; device++) {
		uint32_t id = read32(ECAM + (device << 15));

		if (id == 0xffffffff)
			continue;
		put_hex(device, 2);
		put(" ");
		put_hex(id & 0xffff, 4);
		put(":");
		put_hex(id >> 16, 4);
		put("\n");
	}
}
