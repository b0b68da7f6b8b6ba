/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See loop.h.
 *
 * A round is one collect and the sends that empty the list. Only the next collect shows how much was written during the
 * round. The prediction is made then, for exactly the list that the switchover would send.
 */
#include "vmm/migration/loop.h"

#include "core/probe.h"

#include <stdio.h>

#define SECOND 1000000000ull
#define MILLISECOND 1000000ull
#define SLICE (100 * MILLISECOND)      /* of sending, between two looks at the clock and the user */
#define SHORT_ROUND (10 * MILLISECOND) /* shorter rounds only cost the guest: the loop sleeps between them */
#define MEASURABLE MIB(1)              /* a smaller amount measures latencies, not a rate */
#define PATIENCE 2                     /* rounds without progress before something is done */
#define MISSES 4u                      /* rounds for the aim that are no smaller, before it is given up */
#define LEAST_STEP 5u                  /* percent */
#define MOST_STEP 20u

struct loop {
	const struct migration_loop_ops *ops;
	void *opaque;
	const struct migration_goal *goal;
	struct migration_progress *told;
	uint64_t start;
	uint64_t rate; /* bytes a second, 0: unknown */
	uint64_t before; /* listed at the start of the last round */
	uint64_t round_start;
	uint64_t round_bytes, round_wire, round_time; /* of sending only */
	uint64_t round_content, round_looking;
	unsigned int stuck; /* consecutive rounds that did not get smaller */
	unsigned int missed; /* the same, of those for the goal's aim */
	struct migration_costs costs;
};

/* a * b / c without overflow; a larger result, or division by zero, is UINT64_MAX. */
static uint64_t migration_loop_scale(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 result = c ? (unsigned __int128)a * b / c : UINT64_MAX;

	return result > UINT64_MAX ? UINT64_MAX : (uint64_t)result;
}

static uint64_t migration_loop_add(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

const char *migration_format_bytes(uint64_t bytes, char *buf)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, 24, value < 10 && unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return buf;
}

const char *migration_format_rate(uint64_t rate, char *buf)
{
	size_t len = strlen(migration_format_bytes(rate, buf));

	memcpy(buf + len, "/s", sizeof("/s"));
	return buf;
}

/* ---- prediction ---- */

/* The downtime if that much memory is dirty. */
static uint64_t migration_loop_downtime_with(const struct loop *loop, uint64_t memory)
{
	uint64_t bytes = migration_loop_add(migration_loop_add(memory, loop->costs.untold), loop->costs.device);
	uint64_t sending = bytes ? migration_loop_scale(bytes, SECOND, loop->rate) : 0;

	return migration_loop_add(MAX(sending, loop->costs.device_time), loop->costs.fixed);
}

static void migration_loop_predict(struct loop *loop)
{
	struct migration_progress *told = loop->told;
	uint64_t unseen = migration_loop_scale(told->dirty_rate, loop->costs.unseen, SECOND);

	told->device = loop->costs.device;
	told->device_time = loop->costs.device_time;
	told->device_assumed = loop->costs.device_assumed;
	told->send_rate = loop->rate;
	told->predicted = migration_loop_downtime_with(loop, migration_loop_add(told->left, unseen));
	told->eta = loop->rate > told->dirty_rate ? migration_loop_scale(told->left, SECOND,
									 loop->rate - told->dirty_rate) : 0;
}

/*
 * Measures the rate for pages that the guest has just written: zeros and the time spent on them do not count. If there
 * is hardly anything else, the rate is that of all pages, but not above the bandwidth limit, which zeros do not reach.
 */
static void migration_loop_measure_rate(struct loop *loop)
{
	uint64_t cap = loop->goal->bandwidth ?: UINT64_MAX;

	if (loop->round_content >= MEASURABLE && loop->round_time > loop->round_looking)
		loop->rate = MAX(migration_loop_scale(loop->round_content, SECOND,
						      loop->round_time - loop->round_looking), 1u);
	else if (loop->round_time && !loop->rate)
		loop->rate = MAX(MIN(migration_loop_scale(loop->round_bytes, SECOND, loop->round_time), cap), 1u);
}

static int migration_loop_tell(struct loop *loop, struct err *err)
{
	loop->told->elapsed = loop->ops->now(loop->opaque) - loop->start;
	migration_loop_predict(loop);
	return loop->ops->progress(loop->opaque, err);
}

/* ---- no progress ---- */

static void migration_loop_say_rates(struct loop *loop)
{
	struct migration_progress *told = loop->told;
	unsigned int most = loop->goal->throttle_max;
	char dirty[24], sent[24], throttled[64] = "";

	if (!most)
		snprintf(throttled, sizeof(throttled), "; --throttle-max is 0");
	else if (told->throttle >= most)
		snprintf(throttled, sizeof(throttled), "; throttled to --throttle-max, %u %%", most);
	snprintf(told->reason, sizeof(told->reason), "dirtying %s, sending %s%s",
		 migration_format_rate(told->dirty_rate, dirty), migration_format_rate(loop->rate, sent), throttled);
}

static void migration_loop_say_why(struct loop *loop)
{
	struct migration_progress *told = loop->told;
	uint64_t beside = migration_loop_downtime_with(loop, 0);
	char untold[24];

	if (!loop->costs.ready)
		snprintf(told->reason, sizeof(told->reason), "a device is not ready to stop yet");
	else if (beside >= loop->goal->downtime && loop->costs.untold)
		snprintf(told->reason, sizeof(told->reason),
			 "the switchover takes %.1f ms with the %s of memory whose writers nothing reports, but the downtime "
			 "is %.1f ms", (double)beside / 1e6, migration_format_bytes(loop->costs.untold, untold),
			 (double)loop->goal->downtime / 1e6);
	else if (beside >= loop->goal->downtime)
		snprintf(told->reason, sizeof(told->reason),
			 "the switchover takes %.1f ms without memory, but the downtime is %.1f ms%s",
			 (double)beside / 1e6, (double)loop->goal->downtime / 1e6,
			 loop->costs.pause_late ? "; its disks or networks do not complete their requests in time" :
			 loop->costs.device_assumed ? "; the rate of device state is assumed, see --device-rate" : "");
	else
		migration_loop_say_rates(loop);
}

/* Throttles the guest so that it writes about half of the send rate; in steps, because less may be enough. */
static void migration_loop_throttle(struct loop *loop)
{
	struct migration_progress *told = loop->told;
	uint64_t unhindered = migration_loop_scale(told->dirty_rate, 100, 100 - told->throttle);
	uint64_t share = MIN(migration_loop_scale(loop->rate, 50, unhindered), 100u); /* of its time that it may run */
	unsigned int wanted = 100 - (unsigned int)share;

	wanted = MAX(wanted, told->throttle + LEAST_STEP);
	wanted = MIN(wanted, told->throttle + MOST_STEP);
	told->throttle = MIN(wanted, MIN(loop->goal->throttle_max, MIGRATION_MAX_THROTTLE));
	loop->ops->throttle(loop->opaque, told->throttle);
}

/* Whether the list is that much smaller than the last one. */
static bool migration_loop_gets_smaller(const struct loop *loop)
{
	return loop->told->left <= loop->before - loop->before / 5;
}

/* Judges the last round; the list is that of the new one. */
static void migration_loop_judge(struct loop *loop)
{
	struct migration_progress *told = loop->told;
	uint64_t beside = migration_loop_downtime_with(loop, 0);
	bool smaller = migration_loop_gets_smaller(loop);

	loop->stuck = smaller && loop->costs.ready && beside < loop->goal->downtime ? 0 : loop->stuck + 1;
	told->reason[0] = 0;
	if (loop->stuck < PATIENCE)
		return;
	migration_loop_say_why(loop);
	/* Throttles only if memory is the obstacle. */
	if (loop->costs.ready && beside < loop->goal->downtime && !smaller) {
		if (told->throttle < loop->goal->throttle_max)
			migration_loop_throttle(loop);
		loop->stuck = 0;
	}
}

/* ---- rounds ---- */

static int migration_loop_collect(struct loop *loop, struct err *err)
{
	struct migration_progress *told = loop->told;
	/* collect comes last: later writes are not seen before the pause. */
	int code = loop->ops->costs(loop->opaque, &loop->costs, err) ?:
		   loop->ops->collect(loop->opaque, &told->left, err);
	uint64_t now = loop->ops->now(loop->opaque);

	if (told->round)
		told->dirty_rate = migration_loop_scale(told->left, SECOND, now - loop->round_start);
	loop->round_start = now;
	PROBE(migration_round, told->round, told->left, told->dirty_rate, told->send_rate);
	return code;
}

static bool migration_loop_time_is_up(struct loop *loop)
{
	return loop->goal->timeout && loop->ops->now(loop->opaque) - loop->start >= loop->goal->timeout;
}

/* Empties the list; -ETIME if the time limit is reached before. */
static int migration_loop_send(struct loop *loop, struct err *err)
{
	struct migration_progress *told = loop->told;
	uint64_t first = told->sent;
	int code = 0;

	loop->round_bytes = loop->round_wire = loop->round_time = 0;
	loop->round_content = loop->round_looking = 0;
	while (!code && told->left && !migration_loop_time_is_up(loop)) {
		uint64_t begin = loop->ops->now(loop->opaque);
		struct migration_sent sent = {0};

		code = loop->ops->send(loop->opaque, SLICE, &sent, err);
		if (code)
			return code;
		loop->round_time += loop->ops->now(loop->opaque) - begin;
		loop->round_bytes += sent.bytes;
		loop->round_wire += sent.wire;
		loop->round_content += sent.content;
		loop->round_looking += sent.looking;
		told->sent = first + loop->round_wire;
		told->left = sent.left;
		migration_loop_measure_rate(loop);
		code = migration_loop_tell(loop, err);
	}
	return code ?: told->left ? -ETIME : 0;
}

static int migration_loop_out_of_time(struct loop *loop, struct err *err)
{
	struct migration_progress *told = loop->told;

	/* What was written meanwhile must be sent too and is part of the prediction. */
	if (loop->goal->on_timeout == MIGRATION_STOP_AND_COPY)
		return migration_loop_collect(loop, err) ?: migration_loop_tell(loop, err);
	if (!told->reason[0] && loop->costs.settling)
		snprintf(told->reason, sizeof(told->reason), "%s", loop->costs.settling);
	else if (!told->reason[0] && told->round > 1 && loop->costs.ready)
		migration_loop_say_rates(loop);
	return err_set(err, -ETIME, "not done within %llu s%s%s; the guest continues",
		       (unsigned long long)(loop->goal->timeout / SECOND), told->reason[0] ? ": " : "", told->reason);
}

/* The switchover would be as short as it must be. */
static bool migration_loop_may_end(const struct loop *loop)
{
	const struct migration_progress *told = loop->told;

	return told->round && loop->costs.ready && !loop->costs.settling && told->predicted <= loop->goal->downtime;
}

/* Another round may bring it closer to what is aimed at; a few that do not are put up with. */
static bool migration_loop_goes_on(struct loop *loop)
{
	if (!loop->goal->aim || loop->told->predicted <= loop->goal->aim)
		return false;
	loop->missed += !migration_loop_gets_smaller(loop);
	return loop->missed < MISSES;
}

static int migration_loop_rounds(struct loop *loop, struct err *err)
{
	struct migration_progress *told = loop->told;

	for (;;) {
		int code = migration_loop_collect(loop, err) ?: migration_loop_tell(loop, err);

		if (code)
			return code;
		if (migration_loop_may_end(loop)) {
			if (!migration_loop_goes_on(loop))
				return 0;
		} else if (told->round > 1 && !loop->costs.settling) {
			migration_loop_judge(loop);
		}
		loop->before = told->left;
		told->round++;
		code = migration_loop_send(loop, err);
		if (code && code != -ETIME)
			return code;
		if (migration_loop_time_is_up(loop))
			return migration_loop_out_of_time(loop, err);
		if (loop->round_time < SHORT_ROUND && told->round > 1)
			loop->ops->wait(loop->opaque, SHORT_ROUND);
	}
}

int migration_loop_run(const struct migration_loop_ops *ops, void *opaque, const struct migration_goal *goal,
		       struct migration_progress *last, struct err *err)
{
	struct loop loop = {.ops = ops, .opaque = opaque, .goal = goal, .told = last, .start = ops->now(opaque)};
	int code;

	*last = (struct migration_progress){0};
	code = migration_loop_rounds(&loop, err);
	if (code && last->throttle)
		ops->throttle(opaque, 0);
	return code;
}
