/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_thread.h. */
#include "vmm/session/snapshot_thread.h"

#include <fcntl.h>
#include <stdio.h>

#include "core/errand.h"
#include "core/thread.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/machine/machine_files.h"
#include "vmm/session/machine_on_loop.h"
#include "vmm/snapshot/snapshot_take.h"
#include "vmm/snapshot/state_file.h"

#define COMMIT_MS 600000u

struct snapshot_thread {
	struct snapshot_thread_host host;
	struct snapshot_request request;
	struct snapshot_files files;
	struct snapshot_reply reply;
	struct machine_on_loop on;
	struct disk_copy disks[WIRE_MAX_DISKS]; /* all that are writable */
	int kernel, initrd;
	struct snapshot_take *take;
	struct snapshot_report report;
	enum snapshot_phase told; /* to host.changed */
	pthread_t thread;
	struct event_source *timer; /* set while it waits for the commit */
	bool running;       /* the thread has not reported its end yet */
	char given_up[256]; /* why, if that was said while it ran; or "" */
};

static void snapshot_thread_changed(struct snapshot_thread *thread)
{
	if (thread->report.phase == thread->told)
		return;
	thread->told = thread->report.phase;
	if (thread->host.changed)
		thread->host.changed(thread->host.opaque, &thread->report);
}

/* ---- its end ---- */

/*
 * Nobody waits any more. Of the asker's files nothing stays open, so that their place is free when they are removed.
 * Its thread has ended.
 */
static void snapshot_thread_let_go(struct snapshot_thread *thread)
{
	event_source_remove(take_ptr(thread->timer));
	fd_close(&thread->kernel);
	fd_close(&thread->initrd);
	snapshot_files_close(&thread->files);
}

static void snapshot_thread_fail(struct snapshot_thread *thread, const char *why)
{
	snapshot_thread_let_go(thread);
	thread->report.phase = SNAPSHOT_FAILED;
	if (why)
		snprintf(thread->report.text, sizeof(thread->report.text), "%s", why);
	track_abort(thread->host.track);
	if (thread->request.stop && machine_end(thread->host.machine) == MACHINE_RUNNING)
		machine_on_loop_run(&thread->on);
	host_devices_migration_end(take_ptr(thread->on.devices));
	log_warn(thread->host.log, "no snapshot: %s", thread->report.text);
	snapshot_thread_changed(thread);
	thread->reply.done(thread->reply.opaque, &thread->report);
	thread->host.stays(thread->host.opaque);
}

static unsigned int snapshot_thread_commit_ms(const struct snapshot_thread *thread)
{
	return thread->host.commit_ms ?: COMMIT_MS;
}

static void snapshot_thread_on_timer(void *opaque, uint32_t expirations)
{
	char why[64];

	snprintf(why, sizeof(why), "it was not committed within %u s", snapshot_thread_commit_ms(opaque) / 1000);
	snapshot_thread_fail(opaque, why);
}

static void snapshot_thread_await_commit(struct snapshot_thread *thread)
{
	event_timer_set(thread->timer, snapshot_thread_commit_ms(thread) * 1000000ull, 0);
	snapshot_thread_changed(thread);
	thread->reply.progress(thread->reply.opaque, &thread->report);
}

static int snapshot_thread_do_finish(void *opaque, void *argument, struct err *err)
{
	struct snapshot_thread *thread = opaque;

	thread->report = *(const struct snapshot_report *)argument;
	thread->running = false;
	if (thread->report.phase != SNAPSHOT_WRITTEN)
		snapshot_thread_fail(thread, NULL);
	else if (thread->given_up[0]) /* when it was too late for the thread; nobody would commit it */
		snapshot_thread_fail(thread, thread->given_up);
	else
		snapshot_thread_await_commit(thread);
	return 0;
}

static int snapshot_thread_do_tell(void *opaque, void *argument, struct err *err)
{
	struct snapshot_thread *thread = opaque;

	thread->report = *(const struct snapshot_report *)argument;
	snapshot_thread_changed(thread);
	thread->reply.progress(thread->reply.opaque, &thread->report);
	return 0;
}

static void snapshot_thread_tell(void *opaque, const struct snapshot_report *report)
{
	struct snapshot_thread *thread = opaque;

	event_loop_ask(thread->host.loop, snapshot_thread_do_tell, thread, (void *)report, NULL);
}

static void *snapshot_thread_main(void *opaque)
{
	struct snapshot_thread *thread = opaque;
	struct snapshot_report report;

	snapshot_take_run(thread->take, &report);
	event_loop_ask(thread->host.loop, snapshot_thread_do_finish, thread, &report, NULL);
	return NULL;
}

/* ---- its beginning ---- */

/* -1: there is no such file, or it cannot be read; then it is not kept beside the snapshot. */
static int snapshot_thread_open(struct snapshot_thread *thread, const char *path)
{
	const char *name = path ? machine_files_find(thread->host.files, NULL, path) : NULL;

	return name ? errand_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0) : -1;
}

static int snapshot_thread_begin(struct snapshot_thread *thread, struct err *err)
{
	struct snapshot_take_config config = {
		.request = &thread->request, .files = &thread->files, .ops = &machine_on_loop_ops,
		.machine = &thread->on, .track = thread->host.track, .disks = thread->disks, .tell = snapshot_thread_tell, .opaque = thread,
		.log = thread->host.log,
	};
	int code = machine_on_loop_init(&thread->on, err);

	code = code ?: event_loop_timer(thread->host.loop, snapshot_thread_on_timer, thread, &thread->timer, err);
	if (code)
		return code;
	thread->kernel = config.kernel = snapshot_thread_open(thread, thread->host.config->kernel);
	thread->initrd = config.initrd = snapshot_thread_open(thread, thread->host.config->initrd);
	config.disk_count = disk_copies_of(thread->host.machine, MIGRATION_COPY_WRITABLE, thread->disks);
	config.paused = thread->on.paused;
	code = snapshot_take_create(&config, &thread->take, err);
	code = code ?: track_begin(thread->host.track, &thread->request, err);
	if (code)
		return code;
	code = thread_start(&thread->thread, THREAD_SNAPSHOT, snapshot_thread_main, thread, "snapshot");
	thread->running = !code;
	return code ? err_sys(err, code, "the snapshot's thread") : 0;
}

static void snapshot_thread_free(struct snapshot_thread *thread)
{
	snapshot_take_destroy(thread->take);
	machine_on_loop_done(&thread->on);
	snapshot_thread_let_go(thread);
	free(thread);
}

int snapshot_thread_create(const struct snapshot_thread_host *host, const struct snapshot_request *request,
			   struct snapshot_files *files, const struct snapshot_reply *reply,
			   struct snapshot_thread **ret, struct err *err)
{
	struct snapshot_thread *thread = calloc(1, sizeof(*thread));
	int code;

	if (!thread)
		return err_sys(err, -ENOMEM, "snapshot");
	*thread = (struct snapshot_thread){
		.host = *host, .request = *request, .files = *files, .reply = *reply, .kernel = -1, .initrd = -1,
		.on = {.loop = host->loop, .log = host->log, .machine = host->machine, .name = host->config->name,
		       .purpose = HOST_DEVICES_SNAPSHOT, .tells = request->live},
		.report = {.phase = SNAPSHOT_ROUNDS},
	};
	snapshot_files_init(files);
	code = snapshot_thread_begin(thread, err);
	if (code) {
		track_abort(thread->host.track);
		snapshot_thread_free(thread);
		return code;
	}
	*ret = thread;
	return 0;
}

void snapshot_thread_destroy(struct snapshot_thread *thread, const char *reason)
{
	if (!thread)
		return;
	if (thread->running)
		snapshot_take_cancel(thread->take, reason);
	/* The loop does not run, so the join serves the thread's calls to it. */
	pthread_join(thread->thread, NULL);
	if (thread->report.phase == SNAPSHOT_WRITTEN)
		snapshot_thread_fail(thread, reason);
	snapshot_thread_free(thread);
}

/* ---- what the session asks ---- */

bool snapshot_thread_at_work(const struct snapshot_thread *thread)
{
	return thread && thread->running;
}

bool snapshot_thread_active(const struct snapshot_thread *thread)
{
	return thread && (thread->running || thread->report.phase == SNAPSHOT_WRITTEN);
}

int snapshot_thread_cancel(struct snapshot_thread *thread, const char *reason, struct err *err)
{
	if (!snapshot_thread_active(thread))
		return err_set(err, -ENOENT, "no snapshot is being taken");
	if (!thread->running) {
		snapshot_thread_fail(thread, reason);
		return 0;
	}
	snprintf(thread->given_up, sizeof(thread->given_up), "%s", reason);
	snapshot_take_cancel(thread->take, reason);
	return 0;
}

int snapshot_thread_commit(struct snapshot_thread *thread, const char *id, struct err *err)
{
	char own[37];

	if (!thread || thread->report.phase != SNAPSHOT_WRITTEN)
		return err_set(err, -EINVAL, "no snapshot waits to be committed");
	snapshot_id_text(thread->report.id, own);
	if (strcmp(own, id) != 0)
		return err_set(err, -EINVAL, "the snapshot that waits to be committed is %s", own);
	snapshot_thread_let_go(thread);
	thread->report.phase = SNAPSHOT_DONE;
	snapshot_thread_changed(thread);
	track_commit(thread->host.track, thread->report.id);
	thread->reply.done(thread->reply.opaque, &thread->report);
	if (thread->request.stop)
		thread->host.stop(thread->host.opaque);
	else
		thread->host.stays(thread->host.opaque);
	return 0;
}
