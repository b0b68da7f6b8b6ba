/* SPDX-License-Identifier: Apache-2.0 */
/* See outgoing.h. */
#include "vmm/session/outgoing.h"

#include "core/thread.h"
#include "devices/virtio/virtio.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/migration/source.h"

#include <stdio.h>
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/machine_on_loop.h"

struct outgoing {
	struct outgoing_host host;
	struct migration_request request;
	struct migration_reply reply;
	struct migration_source *source;
	int reached;  /* the socket of its address, or -1 */
	char at[32];  /* the path to that */
	struct machine_on_loop on; /* it keeps its devices while unresolved */
	struct migration_report report; /* the last one that was sent */
	pthread_t thread;
	bool running; /* the thread has not reported its end yet */
};

/* ---- reports; the migration's thread gives them to the loop's ---- */

static int outgoing_on_loop(struct outgoing *outgoing, int (*fn)(void *opaque, void *argument, struct err *err),
			    void *argument)
{
	return event_loop_ask(outgoing->host.loop, fn, outgoing, argument, NULL);
}

static void outgoing_set_report(struct outgoing *outgoing, const struct migration_report *report)
{
	bool changed = outgoing->report.state != report->state;

	outgoing->report = *report;
	if (changed && outgoing->host.changed)
		outgoing->host.changed(outgoing->host.opaque, report);
}

static int outgoing_do_tell(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	outgoing_set_report(outgoing, argument);
	outgoing->reply.progress(outgoing->reply.opaque, &outgoing->report);
	return 0;
}

static void outgoing_tell(void *opaque, const struct migration_report *report)
{
	outgoing_on_loop(opaque, outgoing_do_tell, (void *)report);
}

static int outgoing_do_finish(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;
	const struct log *log = outgoing->host.log;

	outgoing->running = false;
	outgoing_set_report(outgoing, argument);
	outgoing->reply.done(outgoing->reply.opaque, &outgoing->report);
	if (outgoing->report.state == MIGRATION_DONE) {
		log_info(log, "%s at %s now", outgoing->on.paused ? "is paused" : "runs", outgoing->request.to);
		outgoing->host.gone(outgoing->host.opaque);
	} else if (outgoing->report.state == MIGRATION_UNRESOLVED) {
		log_error(log, "%s", outgoing->report.text);
	} else {
		log_warn(log, "not migrated: %s", outgoing->report.text);
		outgoing->host.stays(outgoing->host.opaque);
	}
	return 0;
}

static void *outgoing_thread_main(void *opaque)
{
	struct outgoing *outgoing = opaque;
	struct migration_report report;

	migration_source_run(outgoing->source, &report);
	outgoing_on_loop(outgoing, outgoing_do_finish, &report);
	return NULL;
}

/* ---- its thread and its end ---- */

static int outgoing_start_thread(struct outgoing *outgoing, struct err *err)
{
	int code = thread_start(&outgoing->thread, THREAD_MIGRATION, outgoing_thread_main, outgoing, "migration");

	if (code)
		return err_sys(err, code, "the migration's thread");
	outgoing->running = true;
	return 0;
}

static void outgoing_free(struct outgoing *outgoing)
{
	migration_source_destroy(outgoing->source);
	machine_on_loop_done(&outgoing->on);
	migration_request_done(&outgoing->request);
	fd_close(&outgoing->reached);
	free(outgoing);
}

int outgoing_create(const struct outgoing_host *host, struct migration_request *request, int *fd,
		    const struct migration_reply *reply, struct outgoing **ret, struct err *err)
{
	struct outgoing *outgoing = calloc(1, sizeof(*outgoing));
	struct migration_source_config config = {.ops = &machine_on_loop_ops, .tell = outgoing_tell, .log = host->log};
	int code;

	if (!outgoing)
		return err_sys(err, -ENOMEM, "migration");
	outgoing->host = *host;
	outgoing->reached = -1;
	if (host->reached && *host->reached >= 0) {
		snprintf(outgoing->at, sizeof(outgoing->at), "/proc/self/fd/%d", *host->reached);
		config.at = outgoing->at;
	}
	outgoing->request = *request;
	outgoing->reply = *reply;
	outgoing->report.state = MIGRATION_CONNECTING;
	outgoing->on = (struct machine_on_loop){
		.loop = host->loop, .log = host->log, .machine = host->machine, .name = host->name,
		.copy = request->copy_disks, .tells = true,
	};
	code = machine_on_loop_init(&outgoing->on, err);
	config.paused = outgoing->on.paused;
	config.request = &outgoing->request;
	config.machine = &outgoing->on;
	config.opaque = outgoing;
	code = code ?: migration_source_create(&config, fd, &outgoing->source, err);
	code = code ?: outgoing_start_thread(outgoing, err);
	if (code) {
		outgoing->request = (struct migration_request){0}; /* still belongs to the caller */
		outgoing_free(outgoing);
		return code;
	}
	*request = (struct migration_request){0};
	if (config.at)
		outgoing->reached = take_fd(host->reached);
	*ret = outgoing;
	return 0;
}

void outgoing_destroy(struct outgoing *outgoing, const char *reason)
{
	if (!outgoing)
		return;
	if (outgoing->running)
		migration_source_cancel(outgoing->source, reason, NULL);
	/* The loop does not run, so the join serves the thread's calls to it. */
	pthread_join(outgoing->thread, NULL);
	outgoing_free(outgoing);
}

int outgoing_cancel(struct outgoing *outgoing, const char *reason, struct err *err)
{
	if (!outgoing || !outgoing->running)
		return err_set(err, -ENOENT, "no migration is in progress");
	return migration_source_cancel(outgoing->source, reason, err);
}

const char *outgoing_to(const struct outgoing *outgoing)
{
	return outgoing->request.to;
}

bool outgoing_active(const struct outgoing *outgoing)
{
	return outgoing && (outgoing->running || outgoing->report.state == MIGRATION_UNRESOLVED);
}

bool outgoing_at_work(const struct outgoing *outgoing)
{
	return outgoing && outgoing->running;
}

const struct migration_report *outgoing_report(const struct outgoing *outgoing)
{
	static const struct migration_report none = {.state = MIGRATION_NONE};

	return outgoing ? &outgoing->report : &none;
}

/* The locks are taken, so no machine of this host has a disk. Whether one of the other host may write one, too. */
static int outgoing_check_guarded(const struct outgoing *outgoing, struct err *err)
{
	const struct machine *machine = outgoing->host.machine;
	enum migration_copy copied = outgoing->request.copy_disks;

	for (size_t i = 0; i < machine_virtio_count(machine); i++) {
		struct virtio_device *device = machine_virtio(machine, i);
		const char *why = device->type != VIRTIO_ID_BLOCK ? NULL :
				  disk_copies_wanted(device, copied) ? "it was copied, and each host has its own" :
				  virtio_blk_guard(device);

		if (why)
			return err_set(err, -EPERM,
				       "nothing here shows that the guest does not run at %.100s (%s: %s); if it does not, "
				       "add --yes", outgoing->request.to, device->id, why);
	}
	return 0;
}

int outgoing_resolve(struct outgoing *outgoing, bool go_on, bool sure, struct err *err)
{
	int code = 0;

	if (!outgoing || outgoing->running || outgoing->report.state != MIGRATION_UNRESOLVED)
		return err_set(err, -EINVAL, "there is nothing to resolve");
	if (!go_on) {
		outgoing->report.state = MIGRATION_DONE;
		outgoing->host.gone(outgoing->host.opaque);
		return 0;
	}
	code = machine_lock_disks(outgoing->host.machine, err);
	if (code)
		return err_prefix(err, code, "the guest cannot continue here");
	code = sure ? 0 : outgoing_check_guarded(outgoing, err);
	if (code) {
		machine_unlock_disks(outgoing->host.machine);
		return code;
	}
	machine_on_loop_run(&outgoing->on);
	host_devices_migration_end(take_ptr(outgoing->on.devices));
	outgoing->report.state = MIGRATION_FAILED;
	log_info(outgoing->host.log, "the guest continues here, as requested");
	return 0;
}
