/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See source.h. The steps are a table. If one fails, the earlier ones are undone in reverse order, so that each step
 * only knows its own undo. Two steps are special: after `commit` nobody can cancel, and after `go` a failure cannot be
 * undone by this side.
 */
#include "vmm/migration/source.h"

#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "core/irq.h"
#include "core/monotonic.h"
#include "vmm/migration/source_internal.h"

#define MAX_DEFAULT_STREAMS 4

/* Records the time of a step of the downtime. */
static void source_step_done_at(struct migration_source *source, enum migration_step step, uint64_t time)
{
	source->report->steps[step] += time - source->step_at;
	source->step_at = time;
}

static void source_step_done(struct migration_source *source, enum migration_step step)
{
	source_step_done_at(source, step, monotonic_ns());
}

/* ---- being cancelled ---- */

int migration_source_cancel(struct migration_source *source, const char *reason, struct err *err)
{
	int code = 0;

	pthread_mutex_lock(&source->lock);
	if (source->committed)
		code = err_set(err, -EBUSY, "too late to cancel: the target is about to run the guest");
	else if (!source->reason[0])
		snprintf(source->reason, sizeof(source->reason), "%s", reason);
	if (!code)
		eventfd_kick(source->cancel_fd);
	pthread_mutex_unlock(&source->lock);
	return code;
}

/* ---- deadlines ---- */

/* A step failed: if only because its time was over, says what has not happened. */
static int source_judge_lateness(struct migration_source *source, int code, struct err *err)
{
	if (code != -ECANCELED || source_check_cancelled(source, NULL) || !deadline_passed(&source->deadline))
		return code;
	if (source->stop_at)
		return err_set(err, -ETIME,
			       "%s within the %.3g s for which the guest may be paused (--downtime-limit); it continues here",
			       source->late, (double)source->span / 1e9);
	return err_set(err, -ETIME, "%s within %.3g s", source->late, (double)source->span / 1e9);
}

/* ---- connecting ---- */

static int source_connect_control(struct migration_source *source, struct err *err)
{
	const struct dialer_options options = {.to = &source->address, .cancel_fd = source->deadline.fd,
					      .silence_ms = source->config.silence_ms,
					      .tls = source->config.request->tls,
					      .tls_peer = source->config.request->tls_peer, .asker = MAX(source->asker, 0)};
	int code = dialer_create(&options, &source->dialer, err);

	if (!code)
		source->address.fd = -1;
	source_set_deadline(source, source->config.request->goal.timeout, "the target has not been prepared");
	code = code ?: dialer_connect(source->dialer, WIRE_CONTROL, 0, 1, &source->control, err);
	return code ?: channel_keep_alive(source->control, err);
}

static void source_hang_up(struct migration_source *source)
{
	channel_destroy(take_ptr(source->control));
	dialer_destroy(take_ptr(source->dialer));
}

/* ---- the offer ---- */

static unsigned int source_default_streams(void)
{
	cpu_set_t set;
	int cpus = sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : CPU_COUNT(&set);

	return (unsigned int)MIN(cpus, (int)MAX_DEFAULT_STREAMS);
}

static int source_make_offer(struct migration_source *source, struct err *err)
{
	const struct migration_request *request = source->config.request;
	_cleanup_(free_ptr) char *machine = NULL;
	_cleanup_(free_ptr) char *offer = NULL;
	struct wire_frame frame;
	int code = source_check_disks(source, err) ?: source->config.ops->begin(source->config.machine, &machine, err);

	if (code)
		return code;
	source->streams = request->streams ?: source_default_streams();
	if (asprintf(&offer, "{\"streams\":%u,\"pause\":%llu,\"machine\":%s}", source->streams,
		     (unsigned long long)migration_request_limit(request, UINT64_MAX), machine) < 0) {
		offer = NULL;
		code = err_sys(err, -ENOMEM, "the offer");
	}
	code = code ?: channel_send(source->control, WIRE_OFFER, 0, 0, offer, strlen(offer), err);
	code = code ?: channel_expect(source->control, WIRE_READY, &frame, err);
	if (!code) {
		_cleanup_(free_ptr) char *ready = NULL;

		code = channel_payload_all(source->control, &ready, err);
	}
	if (code)
		source->config.ops->end(source->config.machine);
	return code;
}

/* Ends it, unless the user has to decide: then the machine keeps its state. */
static void source_take_offer_back(struct migration_source *source, bool stays)
{
	if (source->outcome != MIGRATION_UNRESOLVED)
		source->config.ops->end(source->config.machine);
}

/* ---- memory ---- */

static void source_drop_channels(struct migration_source *source, bool stays)
{
	memory_sender_destroy(take_ptr(source->sender));
	limiter_destroy(&source->limiter);
	for (unsigned int i = 0; i < source->streams; i++)
		channel_destroy(take_ptr(source->channels[i]));
}

static int source_join_channels(struct migration_source *source, struct err *err)
{
	const struct migration_request *request = source->config.request;
	const struct memory_sender_options options = {
		.memory = source->config.ops->memory(source->config.machine),
		.channels = source->channels,
		.channel_count = source->streams,
		.limiter = &source->limiter,
		.compress = request->compress == MIGRATION_ZSTD,
		.cancel_fd = source->deadline.fd,
		.tick = source_tick,
		.opaque = source,
	};
	int code = 0;

	limiter_init(&source->limiter, request->goal.bandwidth);
	for (unsigned int i = 0; !code && i < source->streams; i++)
		code = dialer_connect(source->dialer, WIRE_MEMORY, i, source->streams, &source->channels[i], err);
	code = code ?: memory_sender_create(&options, &source->sender, err);
	if (code)
		source_drop_channels(source, true);
	return code;
}

static int source_track(struct migration_source *source, struct err *err)
{
	const struct migration_machine_ops *ops = source->config.ops;
	int code = ops->track(source->config.machine, err);

	if (code)
		return err_prefix(err, code, "tracking what the guest writes");
	ops->dirty(source->config.machine)->rounds_follow = true;
	code = page_list_create(ops->memory(source->config.machine), ops->dirty(source->config.machine), NULL,
				&source->pages, err);
	if (code)
		ops->untrack(source->config.machine);
	return code;
}

static void source_untrack(struct migration_source *source, bool stays)
{
	page_list_destroy(take_ptr(source->pages));
	source->config.ops->dirty(source->config.machine)->rounds_follow = false;
	source->config.ops->untrack(source->config.machine);
}

/* The loop has removed the throttle if it failed; else the guest stays throttled until the pause. */
static void source_unthrottle(struct migration_source *source, bool stays)
{
	if (source->report->progress.throttle)
		source->config.ops->throttle(source->config.machine, 0);
}

/* ---- the switch-over ---- */

static void source_go_on(struct migration_source *source, bool stays)
{
	if (!stays)
		return;
	if (source->devices)
		source->config.ops->run_devices(source->config.machine);
	source->config.ops->resume(source->config.machine);
}

/* From here until GO every wait ends when the guest has been paused for too long. */
static int source_stop(struct migration_source *source, struct err *err)
{
	uint64_t limit = migration_request_limit(source->config.request, source->report->progress.predicted);
	int code;

	source_tell(source, MIGRATION_SWITCHING);
	memset(source->report->steps, 0, sizeof(source->report->steps));
	source->stop_at = source->step_at = monotonic_ns();
	source_set_deadline(source, limit, "the guest has not been paused");
	/* What host devices add to the state is known after they stopped. */
	code = source->config.ops->pause(source->config.machine, (int64_t)((source->stop_at + limit) / 1000000),
					 &source->stopped_at, source->devices ? NULL : &source->state, err);
	if (code)
		return code == -ETIMEDOUT ? -ETIME : code; /* it was not the target */
	source_step_done_at(source, MIGRATION_STEP_PAUSE, source->stopped_at);
	source_step_done(source, MIGRATION_STEP_SAVE);
	code = source_stop_devices(source, err);
	if (code)
		source_go_on(source, true);
	source_step_done(source, MIGRATION_STEP_DEVICES);
	return code;
}

/* Nothing writes to memory any more: this collect gets the rest. Device state is read meanwhile. */
static int source_send_rest(struct migration_source *source, struct err *err)
{
	struct memory_marks marks[PAGE_LIST_MAX_MARKS];
	size_t count = 0;
	int code;

	source->late = "what was left of memory, disks and devices was not sent";
	source->config.ops->dirty(source->config.machine)->rounds_follow = false;
	disk_flusher_begin(source->flusher);
	code = source_end_disks(source, err) ?: page_list_collect(source->pages, err);
	source_step_done(source, MIGRATION_STEP_COLLECT);
	if (!code && page_list_left(source->pages) > MEMORY_SENDER_LITTLE)
		code = source_send_list(source, 0, err);
	code = code ?: page_list_marks(source->pages, marks, &count, err);
	code = code ?: memory_sender_end(source->sender, marks, count, err);
	code = code ?: source_end_devices(source, err);
	source_step_done(source, MIGRATION_STEP_MEMORY);
	return code;
}

static int source_send_state(struct migration_source *source, struct err *err)
{
	struct channel_frame frames[] = {{.type = WIRE_STOPPED}, {.type = WIRE_STATE}, {.type = WIRE_END}};
	int code = source->state.len ? 0 : source->config.ops->save(source->config.machine, &source->state, err);

	source_step_done(source, MIGRATION_STEP_SAVE);
	if (code)
		return err_prefix(err, code, "saving the machine's state");
	frames[1].payload = source->state.data;
	frames[1].len = source->state.len;
	return channel_send_frames(source->control, frames, ARRAY_SIZE(frames), err);
}

static int source_await_loaded(struct migration_source *source, struct err *err)
{
	struct wire_frame frame;
	int code;

	source->late = "the target has not loaded the guest";
	code = channel_expect(source->control, WIRE_LOADED, &frame, err);
	if (code)
		return code;
	source_step_done(source, MIGRATION_STEP_LOAD);
	source->report->target_load = MIN(frame.a, source->report->steps[MIGRATION_STEP_LOAD]);
	return 0;
}

/* What the guest wrote to shared disks must be on storage before the target reads it. */
static int source_await_flush(struct migration_source *source, struct err *err)
{
	source->late = "the disks were not flushed";
	return disk_flusher_wait(source->flusher, source->deadline.fd, -1, err);
}

/* From here on nobody can cancel. */
static int source_commit(struct migration_source *source, struct err *err)
{
	int code = 0;

	pthread_mutex_lock(&source->lock);
	if (source->reason[0])
		code = err_set(err, -ECANCELED, "%s", source->reason);
	else if (deadline_passed(&source->deadline))
		code = err_set(err, -ECANCELED, "too late");
	else
		source->committed = true;
	pthread_mutex_unlock(&source->lock);
	return code;
}

static int source_hand_over(struct migration_source *source, struct err *err)
{
	source->config.ops->unlock_disks(source->config.machine);
	source_step_done(source, MIGRATION_STEP_UNLOCK);
	return 0;
}

/* If another process has locked a disk, the guest must not continue here: it stays paused until the user decides. */
static void source_take_back(struct migration_source *source, bool stays)
{
	struct err err;

	if (!stays || source->config.ops->lock_disks(source->config.machine, &err) == 0)
		return;
	source->outcome = MIGRATION_UNRESOLVED;
	snprintf(source->why_not, sizeof(source->why_not), "%s", err.text);
}

/* After GO: a target that is alive and says nothing else is given as long as one that is silent. */
static int source_await_running(struct migration_source *source, struct wire_frame *frame, struct err *err)
{
	unsigned int silence = source->control->options.silence_ms;
	int code;

	source_set_deadline(source, silence * 1000000ull, NULL);
	code = channel_expect(source->control, WIRE_RUNNING, frame, err);
	if (code == -ECANCELED)
		return err_set(err, -ETIMEDOUT, "the target has not said for %u s that it runs the guest",
			       silence / 1000);
	return code;
}

/* The target does not act on a GO that is cut off. A complete GO is answered, or the guest stays paused here. */
static int source_go(struct migration_source *source, struct err *err)
{
	struct memory_sender_stats stats;
	struct wire_frame frame;
	uint64_t taken;
	int code;

	source->late = "the target has not taken the guest";
	code = channel_send(source->control, WIRE_GO, 0, 0, NULL, 0, err);
	if (code)
		return code;
	code = source_await_running(source, &frame, err);
	if (code == -EREMOTEIO)
		return code;
	if (code) {
		source->outcome = MIGRATION_UNRESOLVED;
		return code;
	}
	source_step_done(source, MIGRATION_STEP_START);
	taken = source->report->steps[MIGRATION_STEP_START];
	source->outcome = MIGRATION_DONE;
	source->report->target_start = MIN(frame.a, taken);
	source->report->downtime = source->step_at - source->stop_at;
	/* The target started the guest target_start after it got GO; half of the rest is the way of the reply. */
	if (!source->report->paused)
		source->report->stall = source->step_at - (taken - source->report->target_start) / 2 - source->stopped_at;
	memory_sender_get_stats(source->sender, &stats);
	source->report->zero_copy = stats.zero_copy;
	return 0;
}

/* ---- all steps ---- */

static const struct step {
	int (*run)(struct migration_source *source, struct err *err);
	/* The undo, after a later step failed or at the end; stays: the guest continues here. May be NULL. */
	void (*undo)(struct migration_source *source, bool stays);
	bool guest; /* the guest is paused for it: undone before the target is notified */
} steps[] = {
	{source_connect_control, NULL, false},
	{source_make_offer, source_take_offer_back, false},
	{source_join_channels, source_drop_channels, false},
	{source_track, source_untrack, false},
	{source_start_devices, source_drop_devices, false},
	{source_start_disks, source_drop_disks, false},
	{source_run_rounds, source_unthrottle, true},
	{source_stop, source_go_on, true},
	{source_send_rest, NULL, false},
	{source_send_state, NULL, false},
	{source_await_loaded, NULL, false},
	{source_await_flush, NULL, false},
	{source_commit, NULL, false},
	{source_hand_over, source_take_back, true},
	{source_go, NULL, false},
};

static void source_undo(struct migration_source *source, size_t done, bool guest)
{
	while (done--)
		if (steps[done].undo && steps[done].guest == guest)
			steps[done].undo(source, source->outcome == MIGRATION_FAILED);
}

/* The peer's message says more than a closed connection; our message is sent to it. */
static void source_explain(struct migration_source *source, int code, struct err *err)
{
	int cancelled = source_check_cancelled(source, err);

	if (!source->control || source->outcome == MIGRATION_UNRESOLVED)
		return;
	if (!cancelled && code == -ECONNRESET)
		code = channel_last_words(source->control, code, err);
	if (code != -EREMOTEIO && code != -ECONNRESET && code != -ETIMEDOUT) /* a lost peer gets no message */
		channel_farewell(source->control, WIRE_ABORT, err->text);
}

static void source_conclude(struct migration_source *source, const struct err *err)
{
	struct migration_report *report = source->report;

	report->state = source->outcome;
	if (source->outcome == MIGRATION_FAILED)
		snprintf(report->text, sizeof(report->text), "%s", err->text);
	else if (source->outcome == MIGRATION_UNRESOLVED && source->why_not[0])
		snprintf(report->text, sizeof(report->text),
			 "%.200s; the guest is paused here: %.200s; mvmm migrate --resolve continue|end decides",
			 err->text, source->why_not);
	else if (source->outcome == MIGRATION_UNRESOLVED)
		snprintf(report->text, sizeof(report->text),
			 "the target was told to run the guest, but its reply was lost (%.200s); the guest is paused here: "
			 "if it runs at %.100s, mvmm migrate --resolve end; else mvmm migrate --resolve continue",
			 err->text, source->config.request->to);
}

void migration_source_run(struct migration_source *source, struct migration_report *report)
{
	struct err err = {""};
	size_t done = 0;
	int code = 0;

	*report = (struct migration_report){.state = MIGRATION_CONNECTING, .paused = source->config.paused};
	source->report = report;
	source->outcome = MIGRATION_FAILED;
	while (!code && done < ARRAY_SIZE(steps)) {
		code = source_check_cancelled(source, &err) ?: steps[done].run(source, &err);
		done += !code;
	}
	code = source_judge_lateness(source, code, &err);
	source_set_deadline(source, 0, NULL);
	source_undo(source, done, true);
	if (code)
		source_explain(source, code, &err);
	source_undo(source, done, false);
	source_hang_up(source);
	source_conclude(source, &err);
}

/* ---- creating it ---- */

int migration_source_create(const struct migration_source_config *config, int *fd, struct migration_source **ret,
			    struct err *err)
{
	struct migration_source *source = calloc(1, sizeof(*source));
	int code = 0;

	if (!source)
		return err_sys(err, -ENOMEM, "migration");
	source->config = *config;
	source->address.fd = source->asker = -1;
	pthread_mutex_init(&source->lock, NULL);
	source->deadline = DEADLINE_NONE;
	source->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	code = source->cancel_fd < 0 ? err_sys(err, -errno, "migration") :
	       deadline_create(source->cancel_fd, &source->deadline, err);
	if (code)
		;
	else if (strcmp(config->request->to, "fd") == 0)
		source->address = (struct address){.kind = ADDRESS_FD, .fd = take_fd(fd), .text = "the descriptor"};
	else
		code = address_parse(config->request->to, false, &source->address, err);
	if (!code && config->at)
		snprintf(source->address.path, sizeof(source->address.path), "%s", config->at);
	if (!code && source->address.kind == ADDRESS_FD && source->address.fd < 0)
		code = err_set(err, -EINVAL, "a descriptor of another process cannot be used");
	else if (!code)
		source->asker = take_fd(fd);
	if (code) {
		migration_source_destroy(source);
		return code;
	}
	*ret = source;
	return 0;
}

void migration_source_destroy(struct migration_source *source)
{
	if (!source)
		return;
	fd_close(&source->address.fd);
	fd_close(&source->asker);
	deadline_destroy(&source->deadline);
	fd_close(&source->cancel_fd);
	state_buffer_free(&source->state);
	pthread_mutex_destroy(&source->lock);
	free(source);
}
