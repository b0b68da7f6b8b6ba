/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See snapshot_take.h. The work is a table of steps with their undo, as in migration/source.c: if a step fails, those
 * before it are undone in reverse order. What the pause needs is prepared before it, and what can be completed from the
 * files is completed after it.
 */
#include "vmm/snapshot/snapshot_take.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>

#include "core/irq.h"
#include "core/monotonic.h"
#include "vmm/snapshot/description.h"
#include "vmm/snapshot/disk_identity.h"
#include "vmm/snapshot/file_copy.h"
#include "vmm/snapshot/live.h"
#include "vmm/snapshot/memory_file.h"
#include "vmm/snapshot/snapshot_devices.h"
#include "vmm/snapshot/snapshot_disks.h"
#include "vmm/snapshot/state_file.h"

#define DRAIN_MS 10000 /* until when the devices must have completed their requests */
#define LIVE_DRAIN_MS 1000 /* the same if the pause should be short; or twice as long as it may be */

struct snapshot_take {
	struct snapshot_take_config config;
	int cancel_fd;
	struct snapshot_report *report;
	struct snapshot_state state;
	struct state_buffer machine; /* state.machine */
	char *offer;
	char *description; /* state.description */
	struct memory_file *memory;
	struct snapshot_devices *devices; /* NULL: none */
	struct live *live;
	uint8_t *pages; /* state.pages */
	struct snapshot_disk_set *disks;
	uint64_t began, pause_began;
	pthread_mutex_t lock;
	/* under lock */
	char reason[256]; /* why it was cancelled, or "" */
	bool written;     /* too late for that */
};

/* ---- progress and its end ---- */

static void snapshot_take_tell(struct snapshot_take *take, enum snapshot_phase phase)
{
	struct memory_file_stats stats = {0};

	if (take->memory)
		memory_file_get_stats(take->memory, &stats);
	take->report->phase = phase;
	take->report->content = stats.pages * GUEST_PAGE_SIZE;
	take->report->passed = stats.at;
	take->report->disk_left = snapshot_disks_left(take->disks);
	take->report->elapsed = monotonic_ns() - take->began;
	take->config.tell(take->config.opaque, take->report);
}

static int snapshot_take_check_cancelled(struct snapshot_take *take, struct err *err)
{
	int code = 0;

	pthread_mutex_lock(&take->lock);
	if (take->reason[0])
		code = err_set(err, -ECANCELED, "%s", take->reason);
	pthread_mutex_unlock(&take->lock);
	return code;
}

void snapshot_take_cancel(struct snapshot_take *take, const char *reason)
{
	pthread_mutex_lock(&take->lock);
	if (!take->written && !take->reason[0]) {
		snprintf(take->reason, sizeof(take->reason), "%s", reason);
		eventfd_kick(take->cancel_fd);
	}
	pthread_mutex_unlock(&take->lock);
}

/* While memory is written. */
static int snapshot_take_tick(void *opaque, struct err *err)
{
	struct snapshot_take *take = opaque;

	snapshot_take_tell(take, take->report->phase);
	return snapshot_take_check_cancelled(take, err);
}

/* ---- before the pause ---- */

static int snapshot_take_begin(struct snapshot_take *take, struct err *err)
{
	return take->config.ops->begin(take->config.machine, &take->offer, err);
}

/* Nothing of the machine may go on until the commit has ended it, or whoever gives it up lets it run. */
static bool snapshot_take_holds(const struct snapshot_take *take)
{
	return take->written && take->config.request->stop;
}

static void snapshot_take_end(struct snapshot_take *take)
{
	if (snapshot_take_holds(take))
		return;
	take->config.ops->end(take->config.machine);
}

static int snapshot_take_identify(struct snapshot_take *take, struct err *err)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	take->state.created_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	take->state.paused = take->config.paused;
	take->state.memory_bytes = guest_memory_size(take->config.ops->memory(take->config.machine));
	disk_identity_boot_id(take->state.boot_id);
	if (getrandom(take->state.id, sizeof(take->state.id), 0) != sizeof(take->state.id))
		return err_sys(err, -errno, "the snapshot's id");
	memcpy(take->report->id, take->state.id, sizeof(take->state.id));
	memcpy(take->state.parent, track_parent(take->config.track), sizeof(take->state.parent));
	memcpy(take->report->parent, take->state.parent, sizeof(take->state.parent));
	return 0;
}

static int snapshot_take_describe(struct snapshot_take *take, struct err *err)
{
	int code = snapshot_take_identify(take, err);

	code = code ?: snapshot_description_write(&take->state, take->offer, &take->description, err);
	if (code)
		return code;
	take->state.description = (struct snapshot_bytes){take->description, strlen(take->description)};
	return 0;
}

static int snapshot_take_open_memory(struct snapshot_take *take, struct err *err)
{
	const struct memory_file_options options = {
		.memory = take->config.ops->memory(take->config.machine), .fd = take->config.files->memory,
		.diff = take->config.request->diff, .cancel_fd = take->cancel_fd, .tick = snapshot_take_tick,
		.opaque = take,
	};

	take->report->memory = take->state.memory_bytes;
	return memory_file_create(&options, &take->memory, err);
}

static void snapshot_take_close_memory(struct snapshot_take *take)
{
	memory_file_destroy(take_ptr(take->memory));
}

static int snapshot_take_find_devices(struct snapshot_take *take, struct err *err)
{
	const struct snapshot_devices_options options = {
		.ops = take->config.ops, .machine = take->config.machine, .limit = SNAPSHOT_MAX_DEVICES,
		.cancel_fd = take->cancel_fd, .tick = snapshot_take_tick, .opaque = take,
	};

	return snapshot_devices_create(&options, &take->devices, err);
}

static void snapshot_take_drop_devices(struct snapshot_take *take)
{
	if (!snapshot_take_holds(take))
		snapshot_devices_run(take->devices);
	snapshot_devices_destroy(take_ptr(take->devices));
}

static int snapshot_take_open_disks(struct snapshot_take *take, struct err *err)
{
	const struct snapshot_disks_options options = {
		.config = &take->config, .cancel_fd = take->cancel_fd, .tick = snapshot_take_tick, .opaque = take,
	};

	return snapshot_disks_create(&options, &take->disks, err);
}

static void snapshot_take_close_disks(struct snapshot_take *take)
{
	snapshot_disks_destroy(take_ptr(take->disks));
}

/* What is flushed or copied now need not be during the pause. */
static int snapshot_take_prepare_disks(struct snapshot_take *take, struct err *err)
{
	return snapshot_disks_prepare(take->disks, err);
}

/* Between the rounds: what the guest has written to its disks meanwhile is copied, so that little is left for the pause. */
static int snapshot_take_look(void *opaque, struct err *err)
{
	struct snapshot_take *take = opaque;

	return snapshot_take_tick(take, err) ?: snapshot_disks_follow(take->disks, err);
}

static int snapshot_take_begin_live(struct snapshot_take *take, struct err *err)
{
	struct live_config config = {
		.ops = take->config.ops, .machine = take->config.machine, .goal = &take->config.request->goal,
		.file = take->memory, .devices = take->devices, .flusher = snapshot_disks_flusher(take->disks),
		.progress = &take->report->progress, .cancel_fd = take->cancel_fd, .look = snapshot_take_look,
		.opaque = take,
	};
	int code = track_first(take->config.track, &config.only, err);

	return code ?: live_begin(&config, &take->live, err);
}

/* The rounds of a live snapshot; for others, what shortens the pause. */
static int snapshot_take_approach(struct snapshot_take *take, struct err *err)
{
	if (!take->config.request->live)
		return track_settle(take->config.track, err);
	return snapshot_devices_start(take->devices, err) ?: snapshot_take_begin_live(take, err) ?:
	       live_rounds(take->live, err);
}

static void snapshot_take_end_live(struct snapshot_take *take)
{
	live_end(take_ptr(take->live));
}

/* ---- the pause ---- */

static int snapshot_take_patience_ms(const struct snapshot_take *take)
{
	const struct snapshot_request *request = take->config.request;
	uint64_t allowed = MIN(2 * request->goal.downtime / 1000000, (uint64_t)INT32_MAX);

	return request->live ? MAX((int)allowed, LIVE_DRAIN_MS) : DRAIN_MS;
}

static int64_t snapshot_take_pause_deadline(const struct snapshot_take *take)
{
	return monotonic_ms() + snapshot_take_patience_ms(take);
}

static int snapshot_take_pause(struct snapshot_take *take, struct err *err)
{
	uint64_t stopped_at;
	int code;

	take->pause_began = monotonic_ns();
	code = take->config.ops->pause(take->config.machine, snapshot_take_pause_deadline(take), &stopped_at,
				       &take->machine, err);
	if (code)
		return code;
	take->state.machine = (struct snapshot_bytes){take->machine.data, take->machine.len};
	take->report->phase = SNAPSHOT_PAUSED;
	return 0;
}

static void snapshot_take_resume(struct snapshot_take *take)
{
	take->config.ops->resume(take->config.machine);
}

/* From here on they write no memory. */
static int snapshot_take_stop_devices(struct snapshot_take *take, struct err *err)
{
	return snapshot_devices_stop(take->devices, err);
}

static void snapshot_take_run_devices(struct snapshot_take *take)
{
	snapshot_devices_run(take->devices);
}

static int snapshot_take_read_devices(struct snapshot_take *take, struct err *err)
{
	int code = snapshot_devices_read(take->devices, err);

	if (!code)
		snapshot_devices_add(take->devices, &take->state);
	return code;
}

/* The pages of a diff are known. */
static int snapshot_take_note_pages(struct snapshot_take *take, const struct page_set *pages, struct err *err)
{
	size_t len;

	take->pages = page_set_flatten(pages, &len);
	if (!take->pages)
		return err_sys(err, -ENOMEM, "the pages of the diff");
	take->state.pages = (struct snapshot_bytes){take->pages, len};
	take->report->memory = page_set_count(pages) * GUEST_PAGE_SIZE;
	return 0;
}

static int snapshot_take_write_pages(struct snapshot_take *take, const struct page_set *pages, struct err *err)
{
	struct page_set *marks;
	size_t count;
	int code = page_set_create(take->config.ops->memory(take->config.machine), false, &marks, err);

	if (code)
		return code;
	page_set_join(marks, pages); /* writing clears marks */
	page_set_regions(marks, &count);
	code = memory_file_write(take->memory, page_set_regions(marks, &count), count, 0, err);
	page_set_destroy(marks);
	return code;
}

static int snapshot_take_write_memory(struct snapshot_take *take, struct err *err)
{
	const struct page_set *pages;
	int code = take->live ? live_rest(take->live, err) : 0;

	code = code ?: track_take(take->config.track, &pages, err);
	if (!code && pages)
		code = snapshot_take_note_pages(take, pages, err);
	if (code || take->live)
		return code;
	return pages ? snapshot_take_write_pages(take, pages, err) : memory_file_write_all(take->memory, err);
}

/* The rounds of a live one have flushed them. */
static int snapshot_take_keep_disks(struct snapshot_take *take, struct err *err)
{
	int code = take->live ? 0 : snapshot_disks_flush(take->disks, snapshot_take_pause_deadline(take), err);

	return code ?: snapshot_disks_keep(take->disks, snapshot_take_patience_ms(take), take->state.disks,
					   &take->state.disk_count, err);
}

/* A machine that is to end waits for the commit. */
static int snapshot_take_let_run(struct snapshot_take *take, struct err *err)
{
	if (!take->config.request->stop) {
		snapshot_devices_run(take->devices);
		take->config.ops->resume(take->config.machine);
	}
	if (!take->config.paused)
		take->report->pause = monotonic_ns() - take->pause_began;
	take->report->phase = SNAPSHOT_CLOSING;
	snapshot_take_end_live(take);
	return 0;
}

/* ---- after the pause ---- */

static int snapshot_take_complete_memory(struct snapshot_take *take, struct err *err)
{
	return memory_file_finish(take->memory, &take->state.sums, err);
}

static int snapshot_take_write(int fd, const void *data, size_t len, const char *what, struct err *err)
{
	int code = file_write(fd, data, len, 0);

	return code ? err_sys(err, code, "%s", what) : 0;
}

/* The guest can be rebooted without them only where they are found by their paths. */
static void snapshot_take_keep_boot_files(struct snapshot_take *take)
{
	const struct snapshot_take_config *config = &take->config;
	bool good = config->kernel >= 0 && config->files->kernel >= 0 &&
		    file_copy_reflink(config->kernel, config->files->kernel) == 0;

	if (good && config->initrd >= 0)
		good = config->files->initrd >= 0 &&
		       file_copy_reflink(config->initrd, config->files->initrd) == 0;
	take->report->reflinks = good;
}

static int snapshot_take_write_state(struct snapshot_take *take, struct err *err)
{
	const struct snapshot_files *files = take->config.files;
	struct state_buffer out = {0};
	int code = snapshot_state_write(&take->state, &out, err);

	code = code ?: snapshot_take_write(files->state, out.data, out.len, "state", err);
	if (!code && files->description >= 0)
		code = snapshot_take_write(files->description, take->description, strlen(take->description),
					   "machine.json", err);
	state_buffer_free(&out);
	if (!code)
		snapshot_take_keep_boot_files(take);
	return code;
}

/* ---- all of it ---- */

struct snapshot_step {
	int (*run)(struct snapshot_take *take, struct err *err);
	void (*undo)(struct snapshot_take *take); /* after a failure of a later step; or NULL */
	bool always;                              /* undo also follows success */
};

static const struct snapshot_step steps[] = {
	{snapshot_take_begin, snapshot_take_end, true},
	{snapshot_take_describe, NULL, false},
	{snapshot_take_open_memory, snapshot_take_close_memory, true},
	{snapshot_take_find_devices, snapshot_take_drop_devices, true},
	{snapshot_take_open_disks, snapshot_take_close_disks, true},
	{snapshot_take_prepare_disks, snapshot_take_end_live, true},
	{snapshot_take_approach, NULL, false},
	{snapshot_take_pause, snapshot_take_resume, false},
	{snapshot_take_stop_devices, snapshot_take_run_devices, false},
	{snapshot_take_write_memory, NULL, false},
	{snapshot_take_read_devices, NULL, false},
	{snapshot_take_keep_disks, NULL, false},
	{snapshot_take_let_run, NULL, false},
	{snapshot_take_complete_memory, NULL, false},
	{snapshot_take_write_state, NULL, false},
};

/* From here on it cannot be cancelled, only given up by the asker. */
static int snapshot_take_conclude(struct snapshot_take *take, struct err *err)
{
	int code = 0;

	pthread_mutex_lock(&take->lock);
	if (take->reason[0])
		code = err_set(err, -ECANCELED, "%s", take->reason);
	take->written = !code;
	pthread_mutex_unlock(&take->lock);
	return code;
}

static void snapshot_take_undo(struct snapshot_take *take, size_t done, bool failed)
{
	while (done--)
		if (steps[done].undo && (failed || steps[done].always))
			steps[done].undo(take);
}

void snapshot_take_run(struct snapshot_take *take, struct snapshot_report *report)
{
	struct err err = {""};
	size_t done = 0;
	int code = 0;

	*report = (struct snapshot_report){.phase = SNAPSHOT_ROUNDS};
	take->report = report;
	take->began = monotonic_ns();
	while (!code && done < ARRAY_SIZE(steps)) {
		code = snapshot_take_check_cancelled(take, &err) ?: steps[done].run(take, &err);
		done += !code;
	}
	code = code ?: snapshot_take_conclude(take, &err);
	if (code == -ECANCELED)
		snapshot_take_check_cancelled(take, &err); /* who noticed it may not know why */
	if (!code)
		snapshot_take_tell(take, SNAPSHOT_CLOSING); /* with the final numbers */
	snapshot_take_undo(take, done, code);
	report->phase = code ? SNAPSHOT_FAILED : SNAPSHOT_WRITTEN;
	report->no_space = code == -ENOSPC || code == -EDQUOT;
	report->elapsed = monotonic_ns() - take->began;
	if (code)
		snprintf(report->text, sizeof(report->text), "%s", err.text);
}

int snapshot_take_create(const struct snapshot_take_config *config, struct snapshot_take **ret, struct err *err)
{
	struct snapshot_take *take = calloc(1, sizeof(*take));

	if (!take)
		return err_sys(err, -ENOMEM, "snapshot");
	take->config = *config;
	pthread_mutex_init(&take->lock, NULL);
	take->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (take->cancel_fd < 0) {
		int code = err_sys(err, -errno, "eventfd");

		snapshot_take_destroy(take);
		return code;
	}
	*ret = take;
	return 0;
}

void snapshot_take_destroy(struct snapshot_take *take)
{
	if (!take)
		return;
	snapshot_devices_destroy(take->devices);
	memory_file_destroy(take->memory);
	state_buffer_free(&take->machine);
	free(take->offer);
	free(take->description);
	free(take->pages);
	fd_close(&take->cancel_fd);
	pthread_mutex_destroy(&take->lock);
	free(take);
}
