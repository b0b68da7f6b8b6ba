/* SPDX-License-Identifier: Apache-2.0 */
/* See outgoing.h. */
#include "vmm/session/outgoing.h"

#include "core/monotonic.h"
#include "core/thread.h"
#include "devices/virtio/virtio.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/migration/source.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/throttle.h"

struct outgoing {
	struct outgoing_host host;
	struct migration_request request;
	struct migration_reply reply;
	struct migration_source *source;
	struct throttle *throttle;
	struct host_devices_migration *devices; /* from begin to end, and while unresolved; or NULL */
	struct disk_copy disks[WIRE_MAX_DISKS]; /* that are copied, from begin to end */
	size_t disk_count;
	struct migration_report report; /* the last one that was sent */
	pthread_t thread;
	bool running; /* the thread has not reported its end yet */
	bool paused;  /* by the user: it is not resumed here, and stays paused on the target */
};

/* ---- from the migration's thread to the loop's ---- */

static int outgoing_on_loop(void *opaque, int (*fn)(void *opaque, void *argument, struct err *err), void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	return event_loop_ask(outgoing->host.loop, fn, outgoing, argument, err);
}

static struct machine *outgoing_machine_of(void *opaque)
{
	struct outgoing *outgoing = opaque;

	return outgoing->host.machine;
}

/* ---- the source's table ---- */

static int outgoing_check_alive(struct outgoing *outgoing, struct err *err)
{
	static const char *const ends[] = {
		[MACHINE_OFF] = "the guest powered off",      [MACHINE_REBOOT] = "the guest rebooted",
		[MACHINE_PANIC] = "the guest's kernel panicked", [MACHINE_STOPPED] = "the machine was ended",
		[MACHINE_FAILED] = "the machine failed",
	};
	enum machine_end end = machine_end(outgoing->host.machine);

	return end == MACHINE_RUNNING ? 0 : err_set(err, -ESHUTDOWN, "%s", ends[end]);
}

/* Warns about memory that will be sent during the pause, before anything is sent. */
static void outgoing_announce_untold(struct outgoing *outgoing)
{
	const char *id;
	uint64_t bytes = host_devices_migration_untold(outgoing->devices, &id);

	if (bytes)
		log_warn(outgoing->host.log, "vfio %s: nothing reports what it writes; %llu MiB of memory will be sent "
			 "while the guest is paused", id, (unsigned long long)(bytes >> 20));
}

static int outgoing_do_offer(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;
	struct host_devices *devices = machine_host_devices(outgoing->host.machine);
	int code = outgoing_check_alive(outgoing, err) ?:
		   host_devices_migration_begin(devices, outgoing->host.name, &outgoing->devices, err);

	if (code)
		return code;
	outgoing_announce_untold(outgoing);
	outgoing->disk_count = disk_copies_of(outgoing->host.machine, outgoing->request.copy_disks, outgoing->disks);
	code = machine_offer(outgoing->host.machine, outgoing->request.copy_disks, argument, err);
	if (code)
		host_devices_migration_end(take_ptr(outgoing->devices));
	return code;
}

static int outgoing_begin(void *opaque, char **offer, struct err *err)
{
	return outgoing_on_loop(opaque, outgoing_do_offer, offer, err);
}

/* Hot plug is refused as long as the migration is active, until its last report. */
static int outgoing_do_end(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	host_devices_migration_end(take_ptr(outgoing->devices));
	return 0;
}

static void outgoing_end(void *opaque)
{
	outgoing_on_loop(opaque, outgoing_do_end, NULL, NULL);
}

static struct guest_memory *outgoing_memory(void *opaque)
{
	return machine_memory(outgoing_machine_of(opaque));
}

static struct dirty_set *outgoing_dirty(void *opaque)
{
	return machine_dirty(outgoing_machine_of(opaque));
}

/* On the loop's thread, because only that thread changes guest memory's regions. */
static int outgoing_do_track(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;
	struct machine *machine = outgoing->host.machine;
	int code = dirty_set_start(machine_dirty(machine), err);

	if (code)
		return code;
	code = disk_copies_track(machine, outgoing->request.copy_disks, err);
	if (code)
		dirty_set_stop(machine_dirty(machine));
	return code;
}

static int outgoing_track(void *opaque, struct err *err)
{
	return outgoing_on_loop(opaque, outgoing_do_track, NULL, err);
}

static int outgoing_do_untrack(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	dirty_set_stop(machine_dirty(outgoing->host.machine));
	disk_copies_untrack(outgoing->host.machine, outgoing->request.copy_disks);
	return 0;
}

static void outgoing_untrack(void *opaque)
{
	outgoing_on_loop(opaque, outgoing_do_untrack, NULL, NULL);
}

static int outgoing_do_throttle(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	throttle_set(outgoing->throttle, *(unsigned int *)argument);
	return 0;
}

static void outgoing_throttle(void *opaque, unsigned int percent)
{
	outgoing_on_loop(opaque, outgoing_do_throttle, &percent, NULL);
}

static int outgoing_do_resume(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	if (!outgoing->paused)
		machine_resume(outgoing->host.machine);
	return 0;
}

#define PAUSE_POLL_NS 1000000 /* how often a pause asks whether the devices' requests have completed */

struct pause {
	int64_t deadline;
	uint64_t *stopped_at;
	struct state_buffer *state;
};

/*
 * Paused vCPUs cannot end the guest or eject a device any more: what has happened before is seen here. -EINPROGRESS:
 * not yet.
 */
static int outgoing_do_pause(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;
	const struct pause *pause = argument;
	int code = outgoing_check_alive(outgoing, err);

	if (code)
		machine_unpause(outgoing->host.machine);
	code = code ?: machine_pause(outgoing->host.machine, pause->deadline, err);
	if (code)
		return code;
	*pause->stopped_at = monotonic_ns();
	code = outgoing_check_alive(outgoing, err) ?:
	       host_devices_check_present(machine_host_devices(outgoing->host.machine), err);
	if (!code && pause->state)
		code = machine_save(outgoing->host.machine, pause->state, err);
	if (code)
		outgoing_do_resume(outgoing, NULL, NULL);
	return code;
}

static int outgoing_pause_machine(void *opaque, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state,
				  struct err *err)
{
	const struct timespec poll = {.tv_nsec = PAUSE_POLL_NS};
	struct pause pause = {deadline, stopped_at, state};
	int code;

	while ((code = outgoing_on_loop(opaque, outgoing_do_pause, &pause, err)) == -EINPROGRESS)
		nanosleep(&poll, NULL);
	return code;
}

static void outgoing_resume_machine(void *opaque)
{
	outgoing_on_loop(opaque, outgoing_do_resume, NULL, NULL);
}

static int outgoing_do_save(void *opaque, void *argument, struct err *err)
{
	return machine_save(outgoing_machine_of(opaque), argument, err);
}

static int outgoing_save(void *opaque, struct state_buffer *out, struct err *err)
{
	return outgoing_on_loop(opaque, outgoing_do_save, out, err);
}

/* ---- its host devices; they do not change during the migration, so any thread may call ---- */

static size_t outgoing_devices(void *opaque, struct vfio_migration *const **ret)
{
	struct outgoing *outgoing = opaque;

	return host_devices_migration_group(outgoing->devices, ret);
}

static int outgoing_start_devices(void *opaque, struct err *err)
{
	struct outgoing *outgoing = opaque;

	return host_devices_migration_start(outgoing->devices, err);
}

static int outgoing_stop_devices(void *opaque, struct err *err)
{
	struct outgoing *outgoing = opaque;

	return host_devices_migration_stop(outgoing->devices, err);
}

/* A device that does not run again is fenced, and the guest continues without it. */
static int outgoing_do_run_devices(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;
	struct err why;

	if (host_devices_migration_run(outgoing->devices, &why))
		log_error(outgoing->host.log, "%s", why.text);
	return 0;
}

static void outgoing_run_devices(void *opaque)
{
	outgoing_on_loop(opaque, outgoing_do_run_devices, NULL, NULL);
}

static uint64_t outgoing_untold(void *opaque)
{
	struct outgoing *outgoing = opaque;
	const char *id;

	return host_devices_migration_untold(outgoing->devices, &id);
}

/* ---- its disks ---- */

static size_t outgoing_disks(void *opaque, const struct disk_copy **ret)
{
	struct outgoing *outgoing = opaque;

	*ret = outgoing->disks;
	return outgoing->disk_count;
}

static size_t outgoing_shared_disks(void *opaque, struct disk_shared ret[WIRE_MAX_DISKS])
{
	struct outgoing *outgoing = opaque;

	return disk_copies_shared(outgoing->host.machine, outgoing->request.copy_disks, ret);
}

/* Nothing else uses the disks of a paused machine, so this need not run on the loop's thread. */
static void outgoing_unlock_disks(void *opaque)
{
	struct outgoing *outgoing = opaque;

	machine_unlock_disks(outgoing->host.machine);
}

static int outgoing_do_lock(void *opaque, void *argument, struct err *err)
{
	return machine_lock_disks(outgoing_machine_of(opaque), err);
}

static int outgoing_lock_disks(void *opaque, struct err *err)
{
	return outgoing_on_loop(opaque, outgoing_do_lock, NULL, err);
}

static const struct migration_machine_ops machine_ops = {
	.begin = outgoing_begin,
	.end = outgoing_end,
	.memory = outgoing_memory,
	.dirty = outgoing_dirty,
	.track = outgoing_track,
	.untrack = outgoing_untrack,
	.throttle = outgoing_throttle,
	.pause = outgoing_pause_machine,
	.resume = outgoing_resume_machine,
	.save = outgoing_save,
	.devices = outgoing_devices,
	.start_devices = outgoing_start_devices,
	.stop_devices = outgoing_stop_devices,
	.run_devices = outgoing_run_devices,
	.untold = outgoing_untold,
	.disks = outgoing_disks,
	.shared_disks = outgoing_shared_disks,
	.unlock_disks = outgoing_unlock_disks,
	.lock_disks = outgoing_lock_disks,
};

/* ---- reports ---- */

static int outgoing_do_tell(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;

	outgoing->report = *(const struct migration_report *)argument;
	outgoing->reply.progress(outgoing->reply.opaque, &outgoing->report);
	return 0;
}

static void outgoing_tell(void *opaque, const struct migration_report *report)
{
	outgoing_on_loop(opaque, outgoing_do_tell, (void *)report, NULL);
}

static int outgoing_do_finish(void *opaque, void *argument, struct err *err)
{
	struct outgoing *outgoing = opaque;
	const struct log *log = outgoing->host.log;

	outgoing->report = *(const struct migration_report *)argument;
	outgoing->running = false;
	outgoing->reply.done(outgoing->reply.opaque, &outgoing->report);
	if (outgoing->report.state == MIGRATION_DONE) {
		log_info(log, "%s at %s now", outgoing->paused ? "is paused" : "runs", outgoing->request.to);
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
	outgoing_on_loop(outgoing, outgoing_do_finish, &report, NULL);
	return NULL;
}

/* ---- its thread and its end ---- */

static int outgoing_start_thread(struct outgoing *outgoing, struct err *err)
{
	int code = thread_start(&outgoing->thread, outgoing_thread_main, outgoing, "migration");

	if (code)
		return err_sys(err, code, "the migration's thread");
	outgoing->running = true;
	return 0;
}

static void outgoing_free(struct outgoing *outgoing)
{
	host_devices_migration_end(outgoing->devices);
	migration_source_destroy(outgoing->source);
	throttle_destroy(outgoing->throttle);
	migration_request_done(&outgoing->request);
	free(outgoing);
}

int outgoing_create(const struct outgoing_host *host, struct migration_request *request, int *fd,
		    const struct migration_reply *reply, struct outgoing **ret, struct err *err)
{
	struct outgoing *outgoing = calloc(1, sizeof(*outgoing));
	struct migration_source_config config = {.ops = &machine_ops, .tell = outgoing_tell, .log = host->log};
	int code;

	if (!outgoing)
		return err_sys(err, -ENOMEM, "migration");
	outgoing->host = *host;
	outgoing->request = *request;
	outgoing->reply = *reply;
	outgoing->report.state = MIGRATION_CONNECTING;
	outgoing->paused = config.paused = machine_paused(host->machine);
	config.request = &outgoing->request;
	config.machine = config.opaque = outgoing;
	code = throttle_create(host->loop, machine_vcpus(host->machine), &outgoing->throttle, err);
	code = code ?: migration_source_create(&config, fd, &outgoing->source, err);
	code = code ?: outgoing_start_thread(outgoing, err);
	if (code) {
		outgoing->request = (struct migration_request){0}; /* still belongs to the caller */
		outgoing_free(outgoing);
		return code;
	}
	*request = (struct migration_request){0};
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
	uint8_t devfn;

	for (size_t i = 0; i < machine_virtio_count(machine); i++) {
		struct virtio_device *device = machine_virtio(machine, i, &devfn);
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
	outgoing_do_run_devices(outgoing, NULL, NULL);
	outgoing_do_resume(outgoing, NULL, NULL);
	host_devices_migration_end(take_ptr(outgoing->devices));
	outgoing->report.state = MIGRATION_FAILED;
	log_info(outgoing->host.log, "the guest continues here, as requested");
	return 0;
}
