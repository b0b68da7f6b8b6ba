/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a running guest's memory has been sent often enough: rounds of collecting what was written and sending it, until
 * what is left, and all else that must happen while the guest stands still, fits into the downtime it may have.
 *
 * Pure: time, memory, devices and the network are behind a table of functions, so that tests simulate them all. It
 * neither pauses the guest nor sends state; source.c does, when this returns.
 *
 * The prediction is a sum: memory left at the rate that was measured and what devices will send when they stop at the same
 * rate, or what they take to give it, whichever is longer, and the fixed costs that this run has measured. Where rounds do
 * not get smaller the guest is slowed down, by no more than it takes; where that does not help either a sentence says why, and
 * the time limit decides.
 */
#pragma once

#include "core/err.h"

#define MIGRATION_MAX_THROTTLE 99u /* percent */

enum migration_on_timeout { MIGRATION_CANCEL, MIGRATION_STOP_AND_COPY };

/* What the user wants. Times in ns. */
struct migration_goal {
	uint64_t downtime;
	uint64_t timeout; /* for all rounds together; 0: none */
	uint64_t bandwidth; /* bytes a second on the wire; 0: as fast as it goes */
	enum migration_on_timeout on_timeout;
};

/* What send did. */
struct migration_sent {
	uint64_t bytes;   /* of guest memory, now off the list */
	uint64_t content; /* of them, those that were not zeros, which cost nothing but the look */
	uint64_t looking; /* ns of the time that went where there were only zeros */
	uint64_t wire;    /* bytes that crossed the wire */
	uint64_t left;    /* of guest memory, still on the list */
};

/* What a switch-over costs beside memory. */
struct migration_costs {
	uint64_t fixed;  /* ns: pausing, state saved, sent and loaded, the last collect, round trips */
	uint64_t unseen; /* ns of writing by the guest that no look has seen when it stands */
	uint64_t untold; /* bytes of memory that go then because nobody can tell whether they were written */
	uint64_t device; /* bytes that devices send after they stopped */
	uint64_t device_time; /* ns that they take at least to give them */
	bool device_assumed;  /* by a rate that nobody has measured */
	bool ready;      /* no device still asks to run on */
};

/* How it goes, for people. Rates in bytes a second, times in ns. */
struct migration_progress {
	unsigned int round;
	uint64_t sent;  /* bytes on the wire so far */
	uint64_t left;  /* of guest memory */
	uint64_t device;    /* bytes that devices will send when they stop */
	uint64_t device_time; /* ns that they will take at least */
	bool device_assumed;  /* by a rate that nobody has measured */
	uint64_t dirty_rate, send_rate;
	uint64_t predicted; /* downtime, were it now */
	uint64_t eta;       /* until then; 0: not known */
	uint64_t elapsed;
	unsigned int throttle; /* percent of its time that the guest is held back */
	char reason[160];      /* why it does not get nearer its end, or "" */
};

struct migration_loop_ops {
	uint64_t (*now)(void *opaque); /* ns */
	/* Puts on the list what was written since the last time (at first: all there is); *left is all that is on it, in bytes. */
	int (*collect)(void *opaque, uint64_t *left, struct err *err);
	/* Sends from the list for about `time` ns, less when it is empty before. */
	int (*send)(void *opaque, uint64_t time, struct migration_sent *ret, struct err *err);
	int (*costs)(void *opaque, struct migration_costs *ret, struct err *err);
	/* Holds the guest back for that many percent of its time; 0: not at all. */
	void (*throttle)(void *opaque, unsigned int percent);
	/* Lets time pass, while there is next to nothing to send and yet no end. */
	void (*wait)(void *opaque, uint64_t time);
	/* Called several times a second and at least once a round, *last being how it goes; nonzero (-ECANCELED) ends it. */
	int (*progress)(void *opaque, struct err *err);
};

/*
 * Runs the rounds. 0: now is the time to switch over, *last has the prediction. -ETIME with a sentence when the goal's time
 * is up and it says cancel; else what an op returned. On failure the throttle is off again; on success it is as it was, so
 * that the guest does not run away on its last steps: the caller lifts it when the guest stands.
 */
int migration_loop_run(const struct migration_loop_ops *ops, void *opaque, const struct migration_goal *goal,
		       struct migration_progress *last, struct err *err);

/* "1.2 GiB" into buf (24 characters), which is returned. */
const char *migration_format_bytes(uint64_t bytes, char *buf);
/* "1.2 GiB/s" into buf (24 characters), which is returned. */
const char *migration_format_rate(uint64_t bytes_per_second, char *buf);
