/* SPDX-License-Identifier: Apache-2.0 */
/* CLOCK_MONOTONIC, the clock of all measurements and deadlines. Any thread. */
#pragma once

#include <time.h>

#include "core/util.h"

static inline uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* In ms, signed, for deadlines: a deadline below 0 never passes. */
static inline int64_t monotonic_ms(void)
{
	return (int64_t)(monotonic_ns() / 1000000);
}

/* The ms left until a deadline, for poll(2): 0 if it has passed, -1 (for ever) for a deadline below 0. */
static inline int monotonic_left(int64_t deadline)
{
	int64_t left = deadline - monotonic_ms();

	return deadline < 0 ? -1 : (int)MIN(MAX(left, 0), 1000000);
}

/* A deadline in ms as a timespec. */
static inline struct timespec monotonic_deadline(int64_t ms)
{
	if (ms < 0)
		return (struct timespec){.tv_sec = INT32_MAX};
	return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
}
