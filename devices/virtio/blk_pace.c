/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a disk's queue interrupts its driver, and how long it sleeps without kicks. See blk_internal.h. Pure arithmetic.
 *
 * An interrupt, like a kick, costs a vCPU an exit, which can cost more than the request itself. A driver that is busy
 * submitting loses nothing if one interrupt reports several completions; a driver that waits for them loses time. They
 * differ when the disk is idle: a busy driver sends more. So only then completions are held back, up to a goal, which
 * grows while requests keep arriving and shrinks when none do, and the next attempt to let it grow comes later. A
 * driver that never has two requests at a time waits for each of them: for it nothing is ever held, and after a failure
 * nothing until it has two again. Nothing is held longer than the driver needs for a few requests.
 */
#include "devices/virtio/blk_internal.h"

#define MAX_GOAL 16u

/* Interrupts without a failure before the goal doubles: fewer after a success, more after a failure. */
#define MIN_PATIENCE 32u
#define MAX_PATIENCE 1024u

/* A driver that submits nothing for POLL_GAPS gaps waits for us; completions are held at most HOLD_POLLS times that. */
#define POLL_GAPS 4u
#define HOLD_POLLS 4u
#define MIN_GAP_NS 5000u
#define MAX_GAP_NS 250000u

void blk_pace_init(struct blk_pace *pace)
{
	*pace = (struct blk_pace){.goal = 1, .patience = MIN_PATIENCE, .gap_ns = MIN_GAP_NS};
}

uint64_t blk_pace_poll_ns(const struct blk_pace *pace)
{
	return POLL_GAPS * MAX(pace->gap_ns, MIN_GAP_NS);
}

void blk_pace_took(struct blk_pace *pace, unsigned int count, unsigned int in_flight, uint64_t now)
{
	uint64_t gap = MIN((now - pace->since_ns) / count, MAX_GAP_NS);

	if (pace->since_ns)
		pace->gap_ns = (3 * pace->gap_ns + gap) / 4;
	pace->since_ns = now;
	pace->overlapped |= count + in_flight > 1;
	pace->busy |= !in_flight && (pace->held || count > 1);
}

void blk_pace_completed(struct blk_pace *pace, unsigned int count, uint64_t now)
{
	if (!pace->held)
		pace->held_ns = now;
	pace->held += count;
}

static void blk_pace_learn(struct blk_pace *pace, bool waits)
{
	if (waits && pace->goal > 1) {
		pace->goal = MAX(MIN(pace->goal, pace->held) / 2, 1u);
		pace->patience = MIN(pace->patience * 2, MAX_PATIENCE);
		pace->credit = 0;
		pace->overlapped = false;
	} else if ((pace->goal > 1 ? pace->busy : pace->overlapped) && ++pace->credit >= pace->patience) {
		pace->goal = MIN(pace->goal * 2, MAX_GOAL);
		pace->patience = MAX(pace->patience / 2, MIN_PATIENCE);
		pace->credit = 0;
	}
}

bool blk_pace_interrupt(struct blk_pace *pace, bool quiet, unsigned int in_flight, uint64_t now)
{
	bool overdue = now - pace->held_ns >= HOLD_POLLS * blk_pace_poll_ns(pace);

	if (quiet)
		pace->since_ns = 0; /* the next gap is not the driver's pace */
	if (!pace->held || (pace->held < pace->goal && !quiet && !in_flight && !overdue))
		return false;
	blk_pace_learn(pace, quiet || in_flight);
	if (pace->goal == 1)
		pace->since_ns = now;
	pace->held = 0;
	pace->busy = false;
	return true;
}
