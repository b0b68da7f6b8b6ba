/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints the memory map of the start info, and writes and reads back the last page of every RAM range below 4 GiB.
 * hvm_start_info version 1: the map's address is at byte 40, its entry count at byte 48, an entry has 24 bytes.
 */
#include "tests/guests/guest.h"

struct entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

void guest_main(const uint32_t *info)
{
	const struct entry *map = (const struct entry *)*(const uint64_t *)(info + 10);
	uint32_t count = info[12];

	for (uint32_t i = 0; i < count; i++) {
		uint64_t last = map[i].addr + map[i].size - 8;

		put_hex(map[i].addr, 12);
		put("+");
		put_hex(map[i].size, 12);
		put(map[i].type == 1 ? " ram" : " reserved");
		if (map[i].type == 1 && last < 0xffffffff) {
			*(volatile uint64_t *)last = last;
			put(*(volatile uint64_t *)last == last ? " ok" : " BAD");
		}
		put("\n");
	}
}
