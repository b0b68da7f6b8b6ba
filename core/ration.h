/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bound for what others can repeat: so many at once, then one in each period. Not for several threads at a time.
 */
#pragma once

#include "core/util.h"

struct ration {
	unsigned int at_once, period_ms;
	int64_t paid; /* ms: all that was taken would be paid by then, at one a period */
};

/* When the next one may be taken, in ms of CLOCK_MONOTONIC; in the past: now. */
static inline int64_t ration_next(const struct ration *ration)
{
	return ration->paid - (int64_t)(ration->at_once - 1) * ration->period_ms;
}

/* Takes one at time now (ms of CLOCK_MONOTONIC), or returns false. */
static inline bool ration_take(struct ration *ration, int64_t now)
{
	if (ration_next(ration) > now)
		return false;
	ration->paid = MAX(ration->paid, now) + ration->period_ms;
	return true;
}
