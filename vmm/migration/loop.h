/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decides when the rounds end. A round collects what the guest has written and sends it. The rounds end when what is
 * left, and all other work during the pause, fits into the allowed downtime.
 *
 * Time, memory, devices and the network are behind a table of functions, so that tests simulate all of them. This file
 * neither pauses the guest nor sends state; source.c does when this returns.
 *
 * The prediction is a sum: the time to send the memory that is left, at the measured rate; for the device state of
 * stopped devices, the longer of sending and reading it; and the fixed costs that this run has measured. If rounds do
 * not get smaller, the guest is throttled as little as possible and at most as much as allowed. If that does not help,
 * a message says why, and the time limit decides.
 */
#pragma once

#include "core/err.h"

#define MIGRATION_MAX_THROTTLE 99u     /* percent */
#define MIGRATION_DEFAULT_THROTTLE 80u /* of its time for which a guest is stopped at most */

enum migration_on_timeout { MIGRATION_CANCEL, MIGRATION_STOP_AND_COPY };

/* What the user asked for. Times in ns. */
struct migration_goal {
	uint64_t downtime;
	uint64_t aim; /* a shorter downtime, for which further rounds are tried, without throttling; 0: none */
	uint64_t timeout; /* for all rounds; 0: none */
	uint64_t bandwidth; /* bytes a second on the wire; 0: no limit */
	unsigned int throttle_max; /* percent, up to MIGRATION_MAX_THROTTLE; 0: the guest is not throttled */
	enum migration_on_timeout on_timeout;
};

/* The result of send. */
struct migration_sent {
	uint64_t bytes;   /* of guest memory, now off the list */
	uint64_t content; /* of these, those that were not zero; zeros cost only the scan */
	uint64_t looking; /* ns spent on chunks that were all zero */
	uint64_t wire;    /* bytes sent */
	uint64_t left;    /* of guest memory, still listed */
};

/* What a switchover costs beside memory. */
struct migration_costs {
	uint64_t fixed;  /* ns: pause, state saved, sent and loaded, last collect, round trips */
	uint64_t unseen; /* ns of the guest's writes after the last collect and before the pause */
	uint64_t untold; /* bytes of memory sent during the pause because nothing reports whether they were written */
	uint64_t device; /* bytes that devices send after they stopped */
	uint64_t device_time; /* ns that the devices need at least to provide them */
	bool device_assumed;  /* at an assumed, not a measured rate */
	bool ready;      /* all devices are ready to stop */
	const char *settling; /* why fixed is not known yet, so that another round follows; or NULL */
	bool pause_late; /* fixed is long because the guest could not be paused within the downtime */
};

/* Progress, for the user. Rates in bytes a second, times in ns. */
struct migration_progress {
	unsigned int round;
	uint64_t sent;  /* bytes sent so far */
	uint64_t left;  /* of guest memory */
	uint64_t device;    /* bytes that devices will send when they stop */
	uint64_t device_time; /* ns that they will need at least */
	bool device_assumed;  /* at an assumed, not a measured rate */
	uint64_t dirty_rate, send_rate;
	uint64_t predicted; /* downtime of a switchover now */
	uint64_t eta;       /* time left until the switchover; 0: not known */
	uint64_t elapsed;
	unsigned int throttle; /* percent of time for which the guest is stopped */
	char reason[160];      /* why the rounds do not converge, or "" */
};

struct migration_loop_ops {
	uint64_t (*now)(void *opaque); /* ns */
	/* Lists what was written since the last call (at first everything); *left: all listed bytes. */
	int (*collect)(void *opaque, uint64_t *left, struct err *err);
	/* Sends listed memory for about `time` ns, or less if nothing is left. */
	int (*send)(void *opaque, uint64_t time, struct migration_sent *ret, struct err *err);
	int (*costs)(void *opaque, struct migration_costs *ret, struct err *err);
	/* Stops the guest for that many percent of its time; 0: not at all. */
	void (*throttle)(void *opaque, unsigned int percent);
	/* Sleeps, when there is almost nothing to send and the end is not reached. */
	void (*wait)(void *opaque, uint64_t time);
	/* Called several times a second and at least once a round; nonzero (-ECANCELED) ends the loop. */
	int (*progress)(void *opaque, struct err *err);
};

/*
 * Runs the rounds. 0: switch over now; *last has the prediction. -ETIME with a message if the time limit is reached and
 * on_timeout is cancel; else the error of an op. After a failure the throttle is off. After success it stays, so that
 * the guest does not dirty much more memory until the pause; the caller removes it after the pause.
 */
int migration_loop_run(const struct migration_loop_ops *ops, void *opaque, const struct migration_goal *goal,
		       struct migration_progress *last, struct err *err);

/* Formats "1.2 GiB" into buf (24 characters). Returns buf. */
const char *migration_format_bytes(uint64_t bytes, char *buf);
/* Formats "1.2 GiB/s" into buf (24 characters). Returns buf. */
const char *migration_format_rate(uint64_t bytes_per_second, char *buf);
