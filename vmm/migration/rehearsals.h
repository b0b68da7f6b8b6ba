/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rehearsals of a switchover: the guest is paused, its state is saved, and it runs again, for no longer than the
 * downtime that was asked for. What that takes is the estimate of the fixed steps, and it warms caches. The first ones
 * follow each other with the rounds, because cold caches make the first one long; later ones come every few seconds.
 *
 * Used by the thread of a migration (source_rounds.c) or of a live snapshot.
 */
#pragma once

#include "vmm/migration/report.h"
#include "vmm/migration/source_config.h"

#define REHEARSALS_KEPT 5u /* of which the estimates are made */

struct rehearsals {
	const struct migration_machine_ops *ops;
	void *machine;
	uint64_t downtime;  /* ns */
	uint64_t *expected; /* MIGRATION_STEPS, ns of each: the estimates; that of the collect is the owner's */
	uint64_t kept[REHEARSALS_KEPT][MIGRATION_STEPS];
	size_t count;
	uint64_t at;
	bool pause_late; /* the guest could not be paused within the downtime, last time */
};

/* Whether one should follow now. */
bool rehearsals_due(const struct rehearsals *rehearsals);
/* There were so many that the estimates can be used. */
bool rehearsals_settled(const struct rehearsals *rehearsals);

/*
 * Pauses and resumes the guest as the switchover will. Fills the steps (ns) pause, save and start, and state, which the
 * caller frees. If it cannot be paused in time, pause_late is set, and steps are as expected but for the pause, which
 * takes longer than allowed.
 */
int rehearsals_pause(struct rehearsals *rehearsals, uint64_t steps[MIGRATION_STEPS], struct state_buffer *state,
		     struct err *err);

/* Adds one; the estimates are those of the last few. */
void rehearsals_add(struct rehearsals *rehearsals, const uint64_t steps[MIGRATION_STEPS]);
