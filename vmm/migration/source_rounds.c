/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See source_internal.h: the rounds of memory and disks, as the table of loop.h, and the rehearsals of a switchover.
 *
 * A rehearsal (rehearsals.h) does the fixed work of a switchover here; then the target does its part.
 */
#include "vmm/migration/source_internal.h"

#include "core/monotonic.h"

#define MARGIN_SILENCES 6           /* of silence_ms: what a target may take beyond the time limit for what was begun */

/* ---- the rounds ---- */

/* Sends listed memory until none is left or the deadline is reached (0: none). */
int source_send_list(struct migration_source *source, uint64_t deadline, struct err *err)
{
	struct memory_marks marks[PAGE_LIST_MAX_MARKS];
	size_t count;
	int code;

	do {
		code = page_list_marks(source->pages, marks, &count, err);
		if (!code && count)
			code = memory_sender_send(source->sender, marks, count, deadline, err);
	} while (!code && count && (!deadline || monotonic_ns() < deadline));
	return code;
}

/* So far, including disks, whose bytes count as content. */
static struct migration_sent source_rounds_sent_so_far(const struct migration_source *source)
{
	uint64_t disks = disk_sender_sent(source->disks);
	struct memory_sender_stats stats;

	memory_sender_get_stats(source->sender, &stats);
	return (struct migration_sent){.content = stats.pages * WIRE_PAGE + disks, .looking = stats.zero_ns,
				       .wire = stats.bytes + disks};
}

static uint64_t source_rounds_left(const struct migration_source *source)
{
	return page_list_left(source->pages) + disk_sender_left(source->disks);
}

static uint64_t source_rounds_now(void *opaque)
{
	return monotonic_ns();
}

/* A target that is alive, and takes or flushes little by little what it got, does not outlast the time limit. */
static void source_rounds_limit(struct migration_source *source, const char *late)
{
	const struct migration_goal *goal = &source->config.request->goal;
	uint64_t begun = goal->bandwidth ? source->streams * WIRE_CHUNK * 2000 / goal->bandwidth : 0; /* ms for chunks */
	uint64_t margin = (begun + source->control->options.silence_ms * (uint64_t)MARGIN_SILENCES) * 1000000;

	if (goal->timeout)
		source_set_deadline(source, goal->timeout - MIN(source->report->progress.elapsed, goal->timeout) + margin,
				    late);
}

/* The target flushes what was sent until now, so that little is left for the pause. */
static int source_rounds_flush_copies(struct migration_source *source, struct err *err)
{
	int code;

	if (!source->disks || !source->report->progress.round)
		return 0;
	source_rounds_limit(source, "the target has not flushed the disks that are copied");
	code = disk_sender_flush(source->disks, err);
	if (!code)
		source_set_deadline(source, 0, NULL);
	return code;
}

static int source_rounds_collect(void *opaque, uint64_t *bytes, struct err *err)
{
	struct migration_source *source = opaque;
	int code = source_rounds_flush_copies(source, err);
	uint64_t begin = monotonic_ns();

	disk_sender_collect(source->disks);
	code = code ?: page_list_collect(source->pages, err);
	source->report->expected[MIGRATION_STEP_COLLECT] = monotonic_ns() - begin;
	*bytes = source_rounds_left(source);
	return code;
}

/* Once a round, and not at its end: the last flush, during the pause, need not wait for one that has just begun. */
static void source_rounds_flush_shared(struct migration_source *source)
{
	unsigned int round = source->report->progress.round;

	if (source->flushed_round == round || !disk_flusher_idle(source->flusher))
		return;
	source->flushed_round = round;
	disk_flusher_begin(source->flusher);
}

static int source_rounds_send(void *opaque, uint64_t time, struct migration_sent *ret, struct err *err)
{
	struct migration_source *source = opaque;
	struct migration_sent before = source_rounds_sent_so_far(source), after;
	uint64_t all = source_rounds_left(source), deadline = monotonic_ns() + time;
	int code;

	source_rounds_flush_shared(source);
	source_rounds_limit(source, "the target has not taken what was sent");
	code = disk_sender_send(source->disks, deadline, err); /* first: memory changes faster */
	if (!code && monotonic_ns() < deadline)
		code = source_send_list(source, deadline, err);
	if (!code)
		source_set_deadline(source, 0, NULL);
	after = source_rounds_sent_so_far(source);
	ret->left = source_rounds_left(source);
	ret->bytes = all - ret->left;
	ret->content = after.content - before.content;
	ret->looking = after.looking - before.looking;
	ret->wire = after.wire - before.wire;
	return code;
}

static void source_rounds_throttle(void *opaque, unsigned int percent)
{
	struct migration_source *source = opaque;

	source->config.ops->throttle(source->config.machine, percent);
}

static void source_rounds_wait(void *opaque, uint64_t time)
{
	const struct timespec span = {.tv_sec = (time_t)(time / 1000000000), .tv_nsec = (long)(time % 1000000000)};

	source_rounds_flush_shared(opaque);
	nanosleep(&span, NULL);
}

static int source_rounds_progress(void *opaque, struct err *err)
{
	struct migration_source *source = opaque;
	int code = source_check_cancelled(source, err);

	if (code)
		return code;
	source_tell(source, MIGRATION_MEMORY);
	return source_tick(source, err);
}

/* ---- rehearsals ---- */

/* Sends a page and the state as the switchover will; the target loads what it can of the state. steps: ns of each. */
static int source_rounds_send_trial(struct migration_source *source, const struct state_buffer *state, uint64_t *steps,
				    struct err *err)
{
	unsigned int silence = source->control->options.silence_ms;
	uint64_t begin = monotonic_ns(), sent;
	struct wire_frame frame;
	int code;

	source_set_deadline(source, silence * 1000000ull, "the target has not tried to load the state");
	code = memory_sender_rehearse(source->sender, err);
	sent = monotonic_ns();
	code = code ?: channel_send(source->control, WIRE_TRIAL, 0, 0, state->data, state->len, err);
	code = code ?: channel_expect(source->control, WIRE_TRIED, &frame, err);
	if (code)
		return code;
	source_set_deadline(source, 0, NULL);
	steps[MIGRATION_STEP_MEMORY] = sent - begin;
	steps[MIGRATION_STEP_LOAD] = monotonic_ns() - sent;
	/* Adds one more round trip. */
	steps[MIGRATION_STEP_START] += steps[MIGRATION_STEP_LOAD] - MIN(frame.a, steps[MIGRATION_STEP_LOAD]);
	return 0;
}

static int source_rounds_rehearse(struct migration_source *source, struct err *err)
{
	uint64_t steps[MIGRATION_STEPS] = {0};
	struct state_buffer state = {0};
	int code = rehearsals_pause(&source->rehearsals, steps, &state, err);

	if (!code && !source->rehearsals.pause_late) {
		steps[MIGRATION_STEP_LOAD] = steps[MIGRATION_STEP_PAUSE] + steps[MIGRATION_STEP_SAVE];
		if (source->control->conversation.version >= WIRE_TRIALS_SINCE)
			code = source_rounds_send_trial(source, &state, steps, err);
	}
	state_buffer_free(&state);
	if (!code)
		rehearsals_add(&source->rehearsals, steps);
	return code;
}

/* ---- what a switchover costs ---- */

/* Flushes run while memory is collected, sent and loaded. What they take longer is added. */
static uint64_t source_rounds_flush_costs(struct migration_source *source)
{
	const uint64_t *expected = source->report->expected;
	uint64_t before_load = expected[MIGRATION_STEP_COLLECT] + expected[MIGRATION_STEP_MEMORY];
	uint64_t before_go = before_load + expected[MIGRATION_STEP_LOAD];
	uint64_t there = disk_sender_flush_time(source->disks), here = disk_flusher_time(source->flusher);

	there -= MIN(there, before_load);
	here -= MIN(here, before_go);
	return MAX(there, here);
}

/* A flush in progress must end first: nobody knows how long it takes. The next one begins after the decision. */
static const char *source_rounds_unknown(struct migration_source *source)
{
	if (!rehearsals_settled(&source->rehearsals))
		return "the switchover has not been rehearsed";
	return disk_flusher_idle(source->flusher) ? NULL : "disks that both hosts use are still being flushed";
}

static int source_rounds_costs(void *opaque, struct migration_costs *ret, struct err *err)
{
	struct migration_source *source = opaque;
	const uint64_t *expected = source->report->expected;
	bool due = source->report->progress.round && rehearsals_due(&source->rehearsals);
	int code = due ? source_rounds_rehearse(source, err) : 0;

	if (code)
		return code;
	*ret = (struct migration_costs){
		.unseen = expected[MIGRATION_STEP_COLLECT] + expected[MIGRATION_STEP_PAUSE],
		.settling = source_rounds_unknown(source),
		.pause_late = source->rehearsals.pause_late,
		.ready = true,
	};
	for (int step = 0; step < MIGRATION_STEPS; step++)
		ret->fixed += expected[step];
	ret->fixed += source_rounds_flush_costs(source);
	return source->devices ? source_device_costs(source, ret, err) : 0;
}

int source_run_rounds(struct migration_source *source, struct err *err)
{
	static const struct migration_loop_ops ops = {
		.now = source_rounds_now,
		.collect = source_rounds_collect,
		.send = source_rounds_send,
		.costs = source_rounds_costs,
		.throttle = source_rounds_throttle,
		.wait = source_rounds_wait,
		.progress = source_rounds_progress,
	};

	source->rehearsals = (struct rehearsals){
		.ops = source->config.ops, .machine = source->config.machine, .expected = source->report->expected,
		.downtime = source->config.request->goal.downtime,
	};
	source_set_deadline(source, 0, NULL);
	return migration_loop_run(&ops, source, &source->config.request->goal, &source->report->progress, err);
}
