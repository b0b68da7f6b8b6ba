/* SPDX-License-Identifier: Apache-2.0 */
/* See rehearsals.h. */
#include "vmm/migration/rehearsals.h"

#include "core/monotonic.h"

#define FIRST 3u                /* before the first estimate is used */
#define USED_FOR 5000000000ull  /* ns for which a rehearsal's result is used */

bool rehearsals_settled(const struct rehearsals *rehearsals)
{
	return rehearsals->count >= FIRST || rehearsals->pause_late;
}

bool rehearsals_due(const struct rehearsals *rehearsals)
{
	return !rehearsals_settled(rehearsals) || monotonic_ns() - rehearsals->at > USED_FOR;
}

/* Until when the guest may have stopped, so that it runs again within the downtime, after its state is saved. */
static int64_t rehearsals_deadline(const struct rehearsals *rehearsals, uint64_t begin)
{
	uint64_t downtime = rehearsals->downtime, save = rehearsals->expected[MIGRATION_STEP_SAVE];

	return (int64_t)((begin + downtime - MIN(2 * save, downtime / 2)) / 1000000);
}

/* A guest whose devices do not stop in time runs again: that is how long a pause takes now. */
static int rehearsals_pause_failed(struct rehearsals *rehearsals, int code, uint64_t begin, uint64_t *steps)
{
	rehearsals->pause_late = code == -ETIMEDOUT;
	if (!rehearsals->pause_late)
		return code;
	memcpy(steps, rehearsals->expected, MIGRATION_STEPS * sizeof(*steps));
	steps[MIGRATION_STEP_PAUSE] = MAX(monotonic_ns() - begin, rehearsals->downtime + 1);
	return 0;
}

int rehearsals_pause(struct rehearsals *rehearsals, uint64_t steps[MIGRATION_STEPS], struct state_buffer *state,
		     struct err *err)
{
	uint64_t begin = monotonic_ns(), stopped_at, saved;
	int code = rehearsals->ops->pause(rehearsals->machine, rehearsals_deadline(rehearsals, begin), &stopped_at,
					  state, err);

	if (code)
		return rehearsals_pause_failed(rehearsals, code, begin, steps);
	rehearsals->pause_late = false;
	saved = monotonic_ns();
	rehearsals->ops->resume(rehearsals->machine);
	steps[MIGRATION_STEP_PAUSE] = stopped_at - begin;
	steps[MIGRATION_STEP_SAVE] = saved - stopped_at;
	steps[MIGRATION_STEP_START] = monotonic_ns() - saved;
	return 0;
}

/* The longest time may have included cold caches or other load; of a single one nothing is known. */
static uint64_t rehearsals_second_longest(const struct rehearsals *rehearsals, int step)
{
	size_t count = MIN(rehearsals->count, REHEARSALS_KEPT);
	uint64_t longest = 0, second = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t value = rehearsals->kept[i][step];

		second = MAX(second, MIN(longest, value));
		longest = MAX(longest, value);
	}
	return count == 1 ? longest : second;
}

void rehearsals_add(struct rehearsals *rehearsals, const uint64_t steps[MIGRATION_STEPS])
{
	memcpy(rehearsals->kept[rehearsals->count++ % REHEARSALS_KEPT], steps, sizeof(rehearsals->kept[0]));
	for (int step = 0; step < MIGRATION_STEPS; step++)
		if (step != MIGRATION_STEP_COLLECT)
			rehearsals->expected[step] = rehearsals_second_longest(rehearsals, step);
	if (rehearsals->pause_late)
		rehearsals->expected[MIGRATION_STEP_PAUSE] = steps[MIGRATION_STEP_PAUSE];
	rehearsals->at = monotonic_ns();
}
