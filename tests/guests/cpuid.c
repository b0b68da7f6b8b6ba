/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the CPUID leaves that a mask of features, or a choice of what is hidden, reaches. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	static const uint32_t leaves[][2] = {{1, 0}, {7, 0}, {0xb, 1}, {0xd, 0}, {0x40000000, 0}, {0x80000001, 0},
					     {0xa, 0}, {0x8000000a, 0}};

	for (unsigned int i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		uint32_t regs[4];

		cpuid(leaves[i][0], leaves[i][1], regs);
		put_hex(leaves[i][0], 8);
		for (int reg = 0; reg < 4; reg++) {
			put(" ");
			put_hex(regs[reg], 8);
		}
		put("\n");
	}
}
