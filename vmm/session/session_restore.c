/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm restore`: a session whose machine comes from a snapshot. It is made as one that arrives from another host, but
 * its memory is a mapping and its state is read at once, so that all of it happens on the loop's thread before the loop
 * runs. With --wait, half of it happens later (session_restore_wait.c). session_restore_run.c chooses.
 */
#include "vmm/session/session_restore_internal.h"

#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/machine/tell_apart.h"
#include "vmm/session/arrival_config.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/restore_disks.h"
#include "vmm/session/session_record.h"
#include "vmm/snapshot/snapshot_devices.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- what to restore ---- */

static int session_restore_open(struct restoring *restoring, struct err *err)
{
	const struct restore_options *options = restoring->options;
	unsigned int flags;
	int code = restore_memory_check(options->memory_mode, &flags, err);

	code = code ?: options->from ? snapshot_open_as(options->from, NULL, flags, &restoring->snapshot, err) :
		       snapshot_open_as(options->state, options->memory, flags | (options->memory ? 0 : SNAPSHOT_NO_MEMORY),
					&restoring->snapshot, err);
	return code ?: snapshot_lock(restoring->snapshot, false, err);
}

/* *ret: its path, which leads to this file from now on, whatever becomes of the folder. NULL: there is none. */
static int session_restore_find_part(struct restoring *restoring, const char *name, char **ret, struct err *err)
{
	const struct snapshot *snapshot = restoring->snapshot;
	_cleanup_(fd_close) int fd = -1;
	int code = snapshot_open_part(snapshot, name, &fd, err);

	if (code || fd < 0)
		return code;
	if (asprintf(ret, "%s/%s", snapshot->path, name) < 0) {
		*ret = NULL;
		return err_sys(err, -ENOMEM, "%s", name);
	}
	return machine_files_add(&restoring->session.files, *ret, &fd, err);
}

/* Those that were kept beside the snapshot, unless others are named. One without the other boots nothing. */
static int session_restore_find_kernel(struct restoring *restoring, struct err *err)
{
	struct arrival_options *here = &restoring->options->here;
	bool initrd = json_object_get(restoring->session.offer->config, "initrd");
	int code = 0;

	if (here->kernel || here->initrd)
		return 0;
	if (initrd)
		code = session_restore_find_part(restoring, "initrd", &here->initrd, err);
	if (!code && (here->initrd || !initrd))
		code = session_restore_find_part(restoring, "kernel", &here->kernel, err);
	if (!here->kernel)
		free(take_ptr(here->initrd));
	return code;
}

/* Some devices take the place of those of the snapshot, others are plugged in later. */
static int session_restore_override(struct restoring *restoring, struct err *err)
{
	struct arrival_options here = restoring->options->here;
	int code;

	here.vfio_count = session_plug_sort(here.vfios, here.vfio_count);
	restoring->plugs = here.vfios + here.vfio_count;
	restoring->plug_count = restoring->options->here.vfio_count - here.vfio_count;
	code = arrival_config_restore(restoring->session.offer, &here, &restoring->config, err);
	return code ?: session_plug_check(&restoring->config, restoring->plugs, restoring->plug_count, err);
}

/* Devices of the snapshot are opened while the machine is made, and pin its memory before anybody watches a handler. */
static int session_restore_check_devices(const struct restoring *restoring, struct err *err)
{
	const char *mode = restoring->options->memory_mode;

	if (!restoring->snapshot->state->device_count || !mode || strncmp(mode, "uffd=", 5) != 0)
		return 0;
	return err_set(err, -ENOTSUP,
		       "--memory-mode %.100s: the snapshot has the state of host devices, which need all of memory at "
		       "once; use map, prefetch or copy", mode);
}

/* What can be done while the stage parses is done then. */
static int session_restore_read(struct restoring *restoring, struct err *err)
{
	const struct snapshot_bytes *description = &restoring->snapshot->state->description;
	struct session *session = &restoring->session;
	int code = json_stage_ask(session->stage, description->data, description->len, err);

	if (!code && session->stage)
		kvm_ahead_open(&session->kvm_ahead);
	return code ?: arrival_config_read(restoring->snapshot->state, session->stage, &session->offer, err);
}

static int session_restore_configure(struct restoring *restoring, struct err *err)
{
	int code = session_restore_open(restoring, err) ?: session_restore_read(restoring, err);

	code = code ?: session_restore_find_kernel(restoring, err);
	code = code ?: session_restore_check_devices(restoring, err);
	return code ?: session_restore_override(restoring, err);
}

/* The snapshot and the session, without a machine. */
static int session_restore_open_all(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_restore_configure(restoring, err);

	if (code)
		return code;
	session->restored = true;
	memcpy(session->restored_id, restoring->snapshot->state->id, sizeof(session->restored_id));
	code = session_make_helpers(session, NULL, err);
	if (!code && !session->loop)
		code = event_loop_create(&session->loop, err);
	session_raise_descriptors();
	code = code ?: service_watch(&session->service, session->loop, &session->log, err);
	code = code ?: session_folder_claim(session, err);
	return code || session->signal_fd >= 0 ? code : session_catch_signals(session, err);
}

int session_restore_check_asker(const struct restoring *restoring, struct err *err)
{
	const struct restore_request *request = restoring->request;

	return request && request->asker_left(request->asker) ? err_set(err, -EPIPE, "the asker has gone") : 0;
}

/* While a disk is copied. */
static int session_restore_tick(void *opaque, struct err *err)
{
	struct restoring *restoring = opaque;

	session_take_signals(&restoring->session);
	return restoring->session.ended ? err_set(err, -ECANCELED, "interrupted") :
					  session_restore_check_asker(restoring, err);
}

int session_restore_find_disks(struct restoring *restoring, const struct machine_config *config,
			       const struct arrival_options *here, struct err *err)
{
	const struct restore_disks_options options = {
		.snapshot = restoring->snapshot, .config = config, .options = restoring->options, .here = here,
		.log = &restoring->session.log, .tick = session_restore_tick, .opaque = restoring,
	};

	return restore_disks_create(&options, &restoring->disks, err);
}

/* ---- the machine ---- */

static const char *session_restore_device_id(const void *opaque, size_t index)
{
	return host_devices_migration_id(opaque, index);
}

/* They stay stopped until the machine starts. */
static int session_restore_load_devices(struct restoring *restoring, struct err *err)
{
	const struct snapshot_state *state = restoring->snapshot->state;
	struct host_devices *devices = machine_host_devices(restoring->session.machine);
	struct vfio_migration *const *group;
	size_t count;
	int code;

	if (!state->device_count && !host_devices_count(devices))
		return 0;
	code = host_devices_migration_begin(devices, restoring->config.name, HOST_DEVICES_SNAPSHOT, &restoring->devices,
					    err);
	if (code)
		return code;
	count = host_devices_migration_group(restoring->devices, &group);
	return snapshot_devices_load(state, group, count, session_restore_device_id, restoring->devices,
				     restoring->session.signal_fd, err);
}

/* Before the vCPUs. One that had to be reset has lost what the guest knows of it. */
static int session_restore_run_devices(struct restoring *restoring, struct err *err)
{
	int code;

	if (!restoring->devices)
		return 0;
	code = host_devices_migration_run(restoring->devices, err) ?:
	       host_devices_migration_check_whole(restoring->devices, err);
	if (!code)
		host_devices_migration_end(take_ptr(restoring->devices));
	return code;
}

static void session_restore_lost(void *opaque)
{
	struct session *session = opaque;

	machine_fail(session->machine);
}

/* In a signal's handler. A confined thread may not remove files, nor wait for the starter; the next of the name may. */
static void session_restore_dying(void *opaque)
{
	struct session *session = opaque;

	if (!thread_is_confined())
		rundir_abandon(session->rundir);
}

static void session_restore_recorded(void *opaque)
{
	session_stop_machine(opaque);
}

/* A recording is one of the mapped file; it has a name of its own, and no port of this process's. */
static int session_restore_record(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	const struct session_record_options options = {
		.snapshot = restoring->snapshot, .loop = session->loop, .log = &session->log,
		.until_ns = restoring->options->record_ns, .stop = session_restore_recorded, .opaque = session,
	};
	int code = session_record_create(&options, &restoring->record, err);

	if (code)
		return code;
	session->out_fd = session_record_out(restoring->record);
	restoring->config.on_reboot = ON_REBOOT_EXIT;
	return session_record_set_disks(restoring->record, &restoring->options->here, &restoring->config, err);
}

static int session_restore_find_memory(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	const struct restore_memory_options options = {
		.mode = restoring->options->memory_mode, .snapshot = restoring->snapshot,
		.config = &restoring->config.memory, .loop = session->loop, .log = &session->log,
		.cancel_fd = session->signal_fd, .lost = session_restore_lost,
		.dying = session_restore_dying, .opaque = session,
	};

	return restore_memory_create(&options, &session->memory, err);
}

static int session_restore_make(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code;

	session->arriving = true;
	code = session_restore_find_memory(restoring, err);
	code = code ?: session_open_ports(session, err);
	code = code ?: session_make_door(session, true, err);
	code = code ?: session_make_machine(session, err);
	return code ?: restore_memory_start(session->memory, machine_memory(session->machine), err);
}

int session_restore_prepare(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_restore_open_all(restoring, err);

	session->arriving = true;
	code = code ?: session_restore_find_memory(restoring, err);
	code = code ?: session_make_door(session, true, err);
	code = code ?: session_prepare_machine(session, err);
	return code ?: restore_memory_start(session->memory, machine_memory(session->machine), err);
}

int session_restore_close_door(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_jail_close(session, err) ?: door_close(session->door, err);

	return code || !session->jail ? code : restore_memory_renew(session->memory, err);
}

int session_restore_load(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	const struct snapshot_bytes *state = &restoring->snapshot->state->machine;
	int code = machine_offer_check(session->offer, session->machine, err);

	code = code ?: session_restore_load_devices(restoring, err);
	code = code ?: machine_load(session->machine, state->data, state->len, err);
	code = code ?: machine_tell_apart(session->machine, err);
	return code ?: restore_disks_lock(restoring->disks, session->machine, err);
}

/* The guest runs: whoever has started this program in order to get there is told. */
static void session_restore_report(struct restoring *restoring)
{
	char line[24];
	int len = snprintf(line, sizeof(line), "%llu\n", (unsigned long long)monotonic_ns());

	if (restoring->options->ready_fd >= 0 && write(restoring->options->ready_fd, line, (size_t)len) != len)
		log_warn(&restoring->session.log, "--ready-fd %d: %m", restoring->options->ready_fd);
	fd_close(&restoring->options->ready_fd);
}

int session_restore_start(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code;

	session_keep_ports(session);
	code = session_restore_run_devices(restoring, err);
	if (code)
		return code;
	err->text[0] = 0; /* from attempts that were not needed */
	session->arriving = false;
	if (!restoring->record && (restoring->options->paused || restoring->snapshot->state->paused))
		machine_start_paused(session->machine);
	else
		code = machine_start(session->machine, err);
	if (code)
		return code;
	restore_disks_keep(restoring->disks);
	session_restore_report(restoring);
	session_plug(session, restoring->plugs, restoring->plug_count);
	return 0;
}

int session_restore_begin(struct restoring *restoring, struct err *err)
{
	int code = session_restore_open_all(restoring, err);

	if (!code && restoring->options->record_ns)
		code = session_restore_record(restoring, err);
	else if (!code)
		code = session_restore_find_disks(restoring, &restoring->config, &restoring->options->here, err);
	code = code ?: session_restore_make(restoring, err);
	code = code ?: session_open_control(&restoring->session, err);
	code = code ?: session_restore_close_door(restoring, err);
	code = code ?: session_restore_load(restoring, err);
	if (!code && restoring->record)
		code = session_record_start(restoring->record, machine_memory(restoring->session.machine), err);
	return code ?: session_restore_start(restoring, err);
}
