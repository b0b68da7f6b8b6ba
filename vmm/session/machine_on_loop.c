/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_on_loop.h. */
#include "vmm/session/machine_on_loop.h"

#include "core/monotonic.h"
#include "devices/virtio/virtio.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/machine/machine_offer.h"
#include "vmm/machine/slots.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/throttle.h"

/* ---- from the other thread to the loop's ---- */

static int machine_on_loop_call(void *opaque, int (*fn)(void *opaque, void *argument, struct err *err), void *argument,
				struct err *err)
{
	struct machine_on_loop *on = opaque;

	return event_loop_ask(on->loop, fn, on, argument, err);
}

static struct machine *machine_on_loop_machine_of(void *opaque)
{
	struct machine_on_loop *on = opaque;

	return on->machine;
}

/* ---- the table ---- */

static int machine_on_loop_check_alive(struct machine_on_loop *on, struct err *err)
{
	static const char *const ends[] = {
		[MACHINE_OFF] = "the guest powered off",      [MACHINE_REBOOT] = "the guest rebooted",
		[MACHINE_PANIC] = "the guest's kernel panicked", [MACHINE_STOPPED] = "the machine was ended",
		[MACHINE_FAILED] = "the machine failed",
	};
	enum machine_end end = machine_end(on->machine);

	return end == MACHINE_RUNNING ? 0 : err_set(err, -ESHUTDOWN, "%s", ends[end]);
}

/* Warns about memory that will be sent during the pause, before anything is sent. A snapshot writes it then. */
static void machine_on_loop_announce_untold(struct machine_on_loop *on)
{
	const char *id;
	uint64_t bytes = on->tells ? host_devices_migration_untold(on->devices, &id) : 0;

	if (bytes)
		log_warn(on->log, "vfio %s: nothing reports what it writes; %llu MiB of memory will be %s "
			 "while the guest is paused", id, (unsigned long long)(bytes >> 20),
			 on->purpose == HOST_DEVICES_SNAPSHOT ? "written" : "sent");
}

static int machine_on_loop_do_offer(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;
	struct host_devices *devices = machine_host_devices(on->machine);
	int code = machine_on_loop_check_alive(on, err) ?:
		   host_devices_migration_begin(devices, on->name, on->purpose, &on->devices, err);

	if (code)
		return code;
	machine_on_loop_announce_untold(on);
	on->disk_count = disk_copies_of(on->machine, on->copy, on->disks);
	code = machine_offer(on->machine, on->copy, argument, err);
	if (code)
		host_devices_migration_end(take_ptr(on->devices));
	return code;
}

static int machine_on_loop_begin(void *opaque, char **offer, struct err *err)
{
	return machine_on_loop_call(opaque, machine_on_loop_do_offer, offer, err);
}

/* Hot plug is refused as long as the migration is active, until its last report. */
static int machine_on_loop_do_end(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;

	host_devices_migration_end(take_ptr(on->devices));
	return 0;
}

static void machine_on_loop_end(void *opaque)
{
	machine_on_loop_call(opaque, machine_on_loop_do_end, NULL, NULL);
}

static struct guest_memory *machine_on_loop_memory(void *opaque)
{
	return machine_memory(machine_on_loop_machine_of(opaque));
}

static struct dirty_set *machine_on_loop_dirty(void *opaque)
{
	return machine_dirty(machine_on_loop_machine_of(opaque));
}

/* On the loop's thread, because only that thread changes guest memory's regions. */
static int machine_on_loop_do_track(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;
	struct machine *machine = on->machine;
	int code = dirty_set_start(machine_dirty(machine), err);

	if (code)
		return code;
	code = disk_copies_track(machine, on->copy, err);
	if (code)
		dirty_set_stop(machine_dirty(machine));
	return code;
}

static int machine_on_loop_track(void *opaque, struct err *err)
{
	return machine_on_loop_call(opaque, machine_on_loop_do_track, NULL, err);
}

static int machine_on_loop_do_untrack(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;

	dirty_set_stop(machine_dirty(on->machine));
	disk_copies_untrack(on->machine, on->copy);
	return 0;
}

static void machine_on_loop_untrack(void *opaque)
{
	machine_on_loop_call(opaque, machine_on_loop_do_untrack, NULL, NULL);
}

static int machine_on_loop_do_track_disks(void *opaque, void *argument, struct err *err)
{
	return disk_copies_track(machine_on_loop_machine_of(opaque), MIGRATION_COPY_WRITABLE, err);
}

static int machine_on_loop_track_disks(void *opaque, struct err *err)
{
	return machine_on_loop_call(opaque, machine_on_loop_do_track_disks, NULL, err);
}

static int machine_on_loop_do_untrack_disks(void *opaque, void *argument, struct err *err)
{
	disk_copies_untrack(machine_on_loop_machine_of(opaque), MIGRATION_COPY_WRITABLE);
	return 0;
}

static void machine_on_loop_untrack_disks(void *opaque)
{
	machine_on_loop_call(opaque, machine_on_loop_do_untrack_disks, NULL, NULL);
}

static int machine_on_loop_do_throttle(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;

	throttle_set(on->throttle, *(unsigned int *)argument);
	return 0;
}

static void machine_on_loop_throttle(void *opaque, unsigned int percent)
{
	machine_on_loop_call(opaque, machine_on_loop_do_throttle, &percent, NULL);
}

static int machine_on_loop_do_resume(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;

	if (!on->paused)
		machine_resume(on->machine);
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
static int machine_on_loop_do_pause(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;
	const struct pause *pause = argument;
	int code = machine_on_loop_check_alive(on, err);

	if (code)
		machine_unpause(on->machine);
	code = code ?: machine_pause(on->machine, pause->deadline, err);
	if (code)
		return code;
	*pause->stopped_at = monotonic_ns();
	code = machine_on_loop_check_alive(on, err) ?:
	       slots_check_present(machine_slots(on->machine), err);
	if (!code && pause->state)
		code = machine_save(on->machine, pause->state, err);
	if (code)
		machine_on_loop_do_resume(on, NULL, NULL);
	return code;
}

static int machine_on_loop_pause_machine(void *opaque, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state,
				  struct err *err)
{
	const struct timespec poll = {.tv_nsec = PAUSE_POLL_NS};
	struct pause pause = {deadline, stopped_at, state};
	int code;

	while ((code = machine_on_loop_call(opaque, machine_on_loop_do_pause, &pause, err)) == -EINPROGRESS)
		nanosleep(&poll, NULL);
	return code;
}

static void machine_on_loop_resume_machine(void *opaque)
{
	machine_on_loop_call(opaque, machine_on_loop_do_resume, NULL, NULL);
}

static int machine_on_loop_do_save(void *opaque, void *argument, struct err *err)
{
	return machine_save(machine_on_loop_machine_of(opaque), argument, err);
}

static int machine_on_loop_save(void *opaque, struct state_buffer *out, struct err *err)
{
	return machine_on_loop_call(opaque, machine_on_loop_do_save, out, err);
}

/* ---- its host devices; they do not change during the migration, so any thread may call ---- */

static size_t machine_on_loop_devices(void *opaque, struct vfio_migration *const **ret)
{
	struct machine_on_loop *on = opaque;

	return host_devices_migration_group(on->devices, ret);
}

static const char *machine_on_loop_device_id(void *opaque, size_t index)
{
	struct machine_on_loop *on = opaque;

	return host_devices_migration_id(on->devices, index);
}

static int machine_on_loop_start_devices(void *opaque, struct err *err)
{
	struct machine_on_loop *on = opaque;

	return host_devices_migration_start(on->devices, err);
}

static int machine_on_loop_stop_devices(void *opaque, struct err *err)
{
	struct machine_on_loop *on = opaque;

	return host_devices_migration_stop(on->devices, err);
}

/* A device that does not run again is fenced, and the guest continues without it. */
static int machine_on_loop_do_run_devices(void *opaque, void *argument, struct err *err)
{
	struct machine_on_loop *on = opaque;
	struct err why;

	if (host_devices_migration_run(on->devices, &why))
		log_error(on->log, "%s", why.text);
	return 0;
}

static void machine_on_loop_run_devices(void *opaque)
{
	machine_on_loop_call(opaque, machine_on_loop_do_run_devices, NULL, NULL);
}

static uint64_t machine_on_loop_untold(void *opaque)
{
	struct machine_on_loop *on = opaque;
	const char *id;

	return host_devices_migration_untold(on->devices, &id);
}

/* ---- its disks ---- */

static size_t machine_on_loop_disks(void *opaque, const struct disk_copy **ret)
{
	struct machine_on_loop *on = opaque;

	*ret = on->disks;
	return on->disk_count;
}

static size_t machine_on_loop_shared_disks(void *opaque, struct disk_shared ret[WIRE_MAX_DISKS])
{
	struct machine_on_loop *on = opaque;

	return disk_copies_shared(on->machine, on->copy, ret);
}

/* Nothing else uses the disks of a paused machine, so this need not run on the loop's thread. */
static void machine_on_loop_unlock_disks(void *opaque)
{
	struct machine_on_loop *on = opaque;

	machine_unlock_disks(on->machine);
}

static int machine_on_loop_do_lock(void *opaque, void *argument, struct err *err)
{
	return machine_lock_disks(machine_on_loop_machine_of(opaque), err);
}

static int machine_on_loop_lock_disks(void *opaque, struct err *err)
{
	return machine_on_loop_call(opaque, machine_on_loop_do_lock, NULL, err);
}

const struct migration_machine_ops machine_on_loop_ops = {
	.begin = machine_on_loop_begin,
	.end = machine_on_loop_end,
	.memory = machine_on_loop_memory,
	.dirty = machine_on_loop_dirty,
	.track = machine_on_loop_track,
	.untrack = machine_on_loop_untrack,
	.track_disks = machine_on_loop_track_disks,
	.untrack_disks = machine_on_loop_untrack_disks,
	.throttle = machine_on_loop_throttle,
	.pause = machine_on_loop_pause_machine,
	.resume = machine_on_loop_resume_machine,
	.save = machine_on_loop_save,
	.devices = machine_on_loop_devices,
	.device_id = machine_on_loop_device_id,
	.start_devices = machine_on_loop_start_devices,
	.stop_devices = machine_on_loop_stop_devices,
	.run_devices = machine_on_loop_run_devices,
	.untold = machine_on_loop_untold,
	.disks = machine_on_loop_disks,
	.shared_disks = machine_on_loop_shared_disks,
	.unlock_disks = machine_on_loop_unlock_disks,
	.lock_disks = machine_on_loop_lock_disks,
};

/* ---- its life ---- */

int machine_on_loop_init(struct machine_on_loop *on, struct err *err)
{
	on->paused = machine_paused(on->machine);
	return throttle_create(on->loop, machine_vcpus(on->machine), &on->throttle, err);
}

void machine_on_loop_done(struct machine_on_loop *on)
{
	host_devices_migration_end(take_ptr(on->devices));
	throttle_destroy(take_ptr(on->throttle));
}

void machine_on_loop_run(struct machine_on_loop *on)
{
	if (on->devices)
		machine_on_loop_do_run_devices(on, NULL, NULL);
	machine_on_loop_do_resume(on, NULL, NULL);
}
