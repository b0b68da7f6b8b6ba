/* SPDX-License-Identifier: Apache-2.0 */
/* See live.h. */
#include "vmm/snapshot/live.h"

#include "core/monotonic.h"
#include "vmm/migration/page_list.h"
#include "vmm/migration/rehearsals.h"

#define FLUSH_MS 10000 /* how long storage may take for the last flush, in the pause */

struct live {
	struct live_config config;
	struct dirty_set *dirty;
	struct page_list *pages;
	unsigned int flushed_round;
	struct rehearsals rehearsals;
	uint64_t expected[MIGRATION_STEPS];
};

/* ---- the table of the rounds ---- */

static uint64_t live_now(void *opaque)
{
	return monotonic_ns();
}

static int live_collect(void *opaque, uint64_t *left, struct err *err)
{
	struct live *live = opaque;
	uint64_t begin = monotonic_ns();
	int code = page_list_collect(live->pages, err);

	live->expected[MIGRATION_STEP_COLLECT] = monotonic_ns() - begin;
	*left = page_list_left(live->pages);
	return code;
}

/* Writes listed memory until none is left or the deadline is reached (0: none). */
static int live_write_list(struct live *live, uint64_t deadline, struct err *err)
{
	struct memory_marks marks[PAGE_LIST_MAX_MARKS];
	size_t count;
	int code;

	do {
		code = page_list_marks(live->pages, marks, &count, err);
		if (!code && count)
			code = memory_file_write(live->config.file, marks, count, deadline, err);
	} while (!code && count && (!deadline || monotonic_ns() < deadline));
	return code;
}

/* Once a round, and not at its end: the last flush, during the pause, need not wait for one that has just begun. */
static void live_flush(struct live *live)
{
	unsigned int round = live->config.progress->round;

	if (live->flushed_round == round || !disk_flusher_idle(live->config.flusher))
		return;
	live->flushed_round = round;
	disk_flusher_begin(live->config.flusher);
}

static int live_send(void *opaque, uint64_t time, struct migration_sent *ret, struct err *err)
{
	struct live *live = opaque;
	uint64_t all = page_list_left(live->pages);
	struct memory_file_stats before, after;
	int code;

	live_flush(live);
	memory_file_get_stats(live->config.file, &before);
	code = disk_flusher_check(live->config.flusher, err) ?: live_write_list(live, monotonic_ns() + time, err);
	memory_file_get_stats(live->config.file, &after);
	ret->left = page_list_left(live->pages);
	ret->bytes = all - ret->left;
	ret->content = ret->wire = (after.pages - before.pages) * GUEST_PAGE_SIZE;
	ret->looking = after.zero_ns - before.zero_ns;
	return code;
}

static int live_rehearse(struct live *live, struct err *err)
{
	uint64_t steps[MIGRATION_STEPS] = {0};
	struct state_buffer state = {0};
	int code = rehearsals_pause(&live->rehearsals, steps, &state, err);

	state_buffer_free(&state);
	if (!code)
		rehearsals_add(&live->rehearsals, steps);
	return code;
}

/* A flush in progress must end first: nobody knows how long it takes. */
static const char *live_unknown(const struct live *live)
{
	if (!rehearsals_settled(&live->rehearsals))
		return "the pause has not been rehearsed";
	return disk_flusher_idle(live->config.flusher) ? NULL : "disks are still being flushed";
}

static int live_costs(void *opaque, struct migration_costs *ret, struct err *err)
{
	struct live *live = opaque;
	bool due = live->config.progress->round && rehearsals_due(&live->rehearsals);
	int code = due ? live_rehearse(live, err) : 0;

	if (code)
		return code;
	*ret = (struct migration_costs){
		.unseen = live->expected[MIGRATION_STEP_COLLECT] + live->expected[MIGRATION_STEP_PAUSE],
		.settling = live_unknown(live),
		.pause_late = live->rehearsals.pause_late,
		.ready = true,
	};
	if (live->config.ops->untold)
		ret->untold = live->config.ops->untold(live->config.machine);
	for (int step = 0; step < MIGRATION_STEPS; step++)
		ret->fixed += live->expected[step];
	ret->fixed += disk_flusher_time(live->config.flusher);
	return snapshot_devices_costs(live->config.devices, ret, err);
}

static void live_throttle(void *opaque, unsigned int percent)
{
	struct live *live = opaque;

	live->config.ops->throttle(live->config.machine, percent);
}

static void live_wait(void *opaque, uint64_t time)
{
	const struct timespec span = {.tv_sec = (time_t)(time / 1000000000), .tv_nsec = (long)(time % 1000000000)};

	live_flush(opaque);
	nanosleep(&span, NULL);
}

static int live_progress(void *opaque, struct err *err)
{
	struct live *live = opaque;

	return live->config.look(live->config.opaque, err);
}

int live_rounds(struct live *live, struct err *err)
{
	static const struct migration_loop_ops ops = {
		.now = live_now,
		.collect = live_collect,
		.send = live_send,
		.costs = live_costs,
		.throttle = live_throttle,
		.wait = live_wait,
		.progress = live_progress,
	};

	return migration_loop_run(&ops, live, live->config.goal, live->config.progress, err);
}

/* ---- before and after them ---- */

static int live_track(struct live *live, struct err *err)
{
	const struct live_config *config = &live->config;
	int code = config->ops->track(config->machine, err);

	if (code)
		return err_prefix(err, code, "tracking what the guest writes");
	live->dirty = config->ops->dirty(config->machine);
	live->dirty->rounds_follow = true;
	return page_list_create(config->ops->memory(config->machine), live->dirty, config->only, &live->pages, err);
}

int live_begin(const struct live_config *config, struct live **ret, struct err *err)
{
	struct live *live = calloc(1, sizeof(*live));
	int code;

	if (!live)
		return err_sys(err, -ENOMEM, "snapshot");
	live->config = *config;
	live->rehearsals = (struct rehearsals){
		.ops = config->ops, .machine = config->machine, .expected = live->expected,
		.downtime = config->goal->downtime,
	};
	code = live_track(live, err);
	if (code) {
		live_end(live);
		return code;
	}
	*ret = live;
	return 0;
}

/* Nothing writes to memory any more: this collect gets the rest. */
int live_rest(struct live *live, struct err *err)
{
	int code;

	live->dirty->rounds_follow = false;
	disk_flusher_begin(live->config.flusher);
	code = page_list_collect(live->pages, err) ?: live_write_list(live, 0, err);
	return code ?: disk_flusher_wait(live->config.flusher, live->config.cancel_fd, monotonic_ms() + FLUSH_MS, err);
}

void live_end(struct live *live)
{
	if (!live)
		return;
	if (live->config.progress->throttle)
		live->config.ops->throttle(live->config.machine, 0);
	if (live->dirty) {
		live->dirty->rounds_follow = false;
		live->config.ops->untrack(live->config.machine);
	}
	page_list_destroy(live->pages);
	free(live);
}
