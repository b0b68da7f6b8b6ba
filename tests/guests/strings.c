/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads device registers by string instructions, each of which leaves the guest many times before it is done. Prints "ready", and
 * after an 'e' was typed whether every one of them has brought what is there: "good" or "bad".
 */
#include "tests/guests/guest.h"

#define SIZE 64

static void copy(void *to, uintptr_t from, uint64_t size)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

void guest_main(const uint32_t *info)
{
	uint32_t wanted[SIZE / 4], got[SIZE / 4];
	int good = 1;

	(void)info;
	for (uint32_t i = 0; i < SIZE / 4; i++)
		wanted[i] = read32(ECAM + 4 * i);
	put("ready\n");
	while (!(inb(COM1 + 5) & 1)) {
		copy(got, ECAM, SIZE);
		for (uint32_t i = 0; i < SIZE / 4; i++)
			good &= got[i] == wanted[i];
	}
	put(good ? "good\n" : "bad\n");
}
