/* SPDX-License-Identifier: Apache-2.0 */
/* Says hello and returns, which switches the machine off. */
#include "tests/guests/guest.h"

void guest_main(const uint32_t *info)
{
	put("hello\n");
}
