/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a disk's queue interrupts its driver, and how long it sleeps without kicks. See blk_internal.h. Pure arithmetic.
 *
 * An interrupt, like a kick, costs a vCPU an exit, which can cost more than the request itself. A driver that is busy
 * submitting loses nothing if one interrupt reports several completions; a driver that waits for them loses time. They
 * differ when the disk is idle: a busy driver sends more. So only then completions are held back up to a goal. The goal
 * doubles while requests keep arriving and falls at once when none do. The time scale is the driver's own: nothing is
 * held longer than the driver needs for a few requests.
 */
#include "devices/virtio/blk_internal.h"

#define MAX_GOAL 16u

/* Interrupts before a goal above the last successful one is tried. */
#define MIN_PATIENCE 32u
#define MAX_PATIENCE 1024u

/* A driver that submits nothing for POLL_GAPS gaps waits for us; completions are held at most HOLD_POLLS times that. */
#define POLL_GAPS 4u
#define HOLD_POLLS 4u
#define MIN_POLL_NS 20000u
#define MAX_POLL_NS 4000000u
#define MAX_GAP_NS 1000000u

void blk_pace_init(struct blk_pace *pace)
{
	*pace = (struct blk_pace){.goal = 1, .cap = MAX_GOAL, .patience = MIN_PATIENCE, .gap_ns = MIN_POLL_NS};
}

uint64_t blk_pace_poll_ns(const struct blk_pace *pace)
{
	return MIN(MAX(POLL_GAPS * pace->gap_ns, MIN_POLL_NS), MAX_POLL_NS);
}

void blk_pace_took(struct blk_pace *pace, unsigned int count, unsigned int in_flight, uint64_t now)
{
	uint64_t gap = MIN((now - pace->since_ns) / count, MAX_GAP_NS);

	if (pace->since_ns)
		pace->gap_ns = (3 * pace->gap_ns + gap) / 4;
	pace->since_ns = now;
	pace->arrived += count;
	if (pace->held && !in_flight)
		pace->busy = true;
}

void blk_pace_completed(struct blk_pace *pace, unsigned int count, uint64_t now)
{
	if (!pace->held)
		pace->held_ns = now;
	pace->held += count;
}

static void blk_pace_grow(struct blk_pace *pace)
{
	if (pace->goal < pace->cap)
		pace->goal = MIN(pace->goal * 2, pace->cap);
	else if (++pace->credit < MIN_PATIENCE)
		return;
	else
		pace->cap = MIN(pace->cap * 2, MAX_GOAL);
	pace->patience = MIN_PATIENCE;
	pace->credit = 0;
}

static void blk_pace_shrink(struct blk_pace *pace)
{
	pace->goal = pace->cap = MAX(MIN(pace->goal, pace->held) / 2, 1u);
	if (pace->goal == 1)
		pace->patience = MIN(pace->patience * 2, MAX_PATIENCE);
	pace->credit = 0;
}

/* At goal 1 nothing is held, so nothing is learned: goal 2 is tried now and then, less often after each failure. */
static void blk_pace_try_more(struct blk_pace *pace)
{
	if (++pace->credit < pace->patience)
		return;
	pace->goal = 2;
	pace->cap = MAX_GOAL;
	pace->credit = 0;
}

bool blk_pace_interrupt(struct blk_pace *pace, bool quiet, unsigned int in_flight, uint64_t now)
{
	bool full = pace->held >= pace->goal, overdue;

	if (quiet)
		pace->since_ns = 0; /* the next gap is not the driver's pace */
	if (!pace->held)
		return false;
	overdue = now - pace->held_ns >= HOLD_POLLS * blk_pace_poll_ns(pace);
	if (!full && !quiet && !in_flight && !overdue)
		return false;
	if (pace->goal == 1)
		blk_pace_try_more(pace);
	else if (quiet || in_flight)
		blk_pace_shrink(pace);
	else if (full && (pace->busy || pace->arrived > pace->told))
		blk_pace_grow(pace);
	if (pace->goal == 1)
		pace->since_ns = now;
	pace->told = pace->held;
	pace->held = pace->arrived = 0;
	pace->busy = false;
	return true;
}
