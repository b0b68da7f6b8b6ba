/* SPDX-License-Identifier: Apache-2.0 */
/* What time it is on the clock by which everything here measures and waits: CLOCK_MONOTONIC. Any thread. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* In ms, signed, for deadlines: those below 0 never come. */
static inline int64_t monotonic_ms(void)
{
	return (int64_t)(monotonic_ns() / 1000000);
}
