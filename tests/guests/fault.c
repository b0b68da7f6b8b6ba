/* SPDX-License-Identifier: Apache-2.0 */
/* Falls over: an exception without a handler, three times. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = {0, 0};

	put("falling\n");
	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}
