/* SPDX-License-Identifier: Apache-2.0 */
/* See control_machine.h. The description below is the interface's definition; docs/control.md explains it. */
#include "vmm/control/control_machine.h"

#include "vmm/config/config.h"
#include "vmm/control/control_devices.h"
#include "vmm/control/control_events.h"
#include "vmm/snapshot/restore_request.h"
#include "vmm/snapshot/snapshot_take.h"

#include <stdio.h>

static const char description[] =
	"# A running machine\n"
	"interface io.mvmm.Machine\n"
	"\n"
	"# kind: disk, net, vsock, console, ...; further members depend on it\n"
	"type Device (id: string, kind: string)\n"
	"\n"
	"# memory is in bytes, uptime in seconds since the machine was made\n"
	"method Info() -> (name: string, pid: int, state: string, cpus: int, memory: int, uptime: float, devices: []Device)\n"
	"\n"
	"# value of a counter or a gauge; a histogram has buckets (le: seconds; count: all that took no longer), sum and count\n"
	"type Bucket (le: float, count: int)\n"
	"type Sample (labels: [string]string, value: ?float, buckets: ?[]Bucket, sum: ?float, count: ?int)\n"
	"# type: counter, gauge or histogram\n"
	"type Family (name: string, type: string, help: string, samples: []Sample)\n"
	"\n"
	"# What the machine has counted, in the manner of Prometheus\n"
	"method Metrics() -> (name: string, families: []Family)\n"
	"\n"
	"# Further members depend on the event; lost: how many were not sent before, since the client read too slowly\n"
	"type Event (time: string, name: string, event: string, lost: ?int)\n"
	"\n"
	"# What happens to the machine, from now on until the client disconnects; needs more. The first event is state\n"
	"method Events() -> (event: Event)\n"
	"\n"
	"# Stops the guest's CPUs and devices until Resume; no error if it is paused already\n"
	"method Pause() -> ()\n"
	"method Resume() -> ()\n"
	"\n"
	"# Presses the power button, or with force ends the machine now; the connection closes when the machine has ended\n"
	"method Stop(force: ?bool) -> ()\n"
	"\n"
	"# Presses Ctrl, Alt and Del; fails if the guest listens to no keyboard\n"
	"method CtrlAltDel() -> ()\n"
	"\n"
	"# Asks the guest to give that many bytes of its memory back, at most all of it; 0 returns all to it.\n"
	"# Info's balloon has how much it has given back\n"
	"method SetBalloon(size: int) -> ()\n"
	"\n"
	"# Shows the guest the size that the disk's image has now\n"
	"method ResizeDisk(id: string) -> (size: int)\n"
	"\n"
	"# Changes limits of a disk, a network card, rng or serial; limits is written as for mvmm run: bandwidth=10M,ops=off\n"
	"method SetLimits(id: string, limits: string) -> ()\n"
	"\n"
	"# Gives a disk another image, which is passed: its descriptor and, if the disk is direct, one with O_DIRECT. path\n"
	"# names it. The guest sees its size\n"
	"method ReplaceDisk(id: string, path: string) -> (size: int)\n"
	"\n"
	"# Plugs the cable of a network card in or out\n"
	"method SetLink(id: string, up: bool) -> ()\n"
	"\n"
	"# Adds a disk or a network card, written as in the JSON file of mvmm run. The asker has opened what it needs and\n"
	"# passes that: the image, with direct also with O_DIRECT; the tap, once for each queue. Replies with the id when it\n"
	"# was added\n"
	"method AddDisk(disk: object) -> (id: string)\n"
	"method AddNet(net: object) -> (id: string)\n"
	"\n"
	"# Asks the guest to release a disk or a network card (timeout: seconds, 30), or with force takes it away as soon as\n"
	"# its requests are complete. What the guest has written is then on the disk\n"
	"method RemoveDisk(id: string, force: ?bool, timeout: ?int) -> ()\n"
	"method RemoveNet(id: string, force: ?bool, timeout: ?int) -> ()\n"
	"\n"
	"# What was found of a host device: path and cdev as in its directory of sysfs and of /dev, group -1 if it is in none\n"
	"type Found (name: string, path: string, mdev: bool, group: int, noiommu: bool, cdev: string)\n"
	"\n"
	"# Adds a host device: vfio is written as for mvmm run --vfio. The asker has opened it: files names the descriptors that\n"
	"# are passed by their paths (/dev/iommu and cdev, or /dev/vfio/vfio and the group; rom: the file of rom=). Replies with\n"
	"# its id when it was added; with more also sends each second what is done with the guest's memory (prefault or map),\n"
	"# and how many bytes of it\n"
	"method AddDevice(vfio: string, device: Found, files: []string) -> (id: ?string, step: ?string, done: ?int, total: ?int)\n"
	"\n"
	"# Asks the guest to release a host device (timeout: seconds, 30), or with force removes it at once\n"
	"method RemoveDevice(id: string, force: ?bool, timeout: ?int) -> ()\n"
	"\n"
	"# state: connecting, memory, switching, done, failed, unresolved, none. Sizes are bytes, rates bytes a second, times seconds.\n"
	"# predicted is the downtime of a switchover now. At the end there are: downtime, stall (how long no CPU ran), steps\n"
	"# (the times of the downtime's steps), target_load and target_start (the target's part of two steps), expected (the\n"
	"# steps' times without memory), and zero_copy (the kernel sent memory without a copy, on at least one stream)\n"
	"type Migration (state: string, round: ?int, sent: ?int, left: ?int, device: ?int, dirty_rate: ?int, send_rate: ?int,\n"
	"  device_assumed: ?bool, throttle: ?int, predicted: ?float, eta: ?float, elapsed: ?float, reason: ?string,\n"
	"  disk_left: ?int, disk_sent: ?int, downtime: ?float, stall: ?float, paused: ?bool, zero_copy: ?bool,\n"
	"  steps: ?[string]float, expected: ?[string]float, target_load: ?float, target_start: ?float,\n"
	"  to: ?string, text: ?string)\n"
	"\n"
	"# Migrates the machine to where mvmm receive waits: tcp:HOST[:PORT], unix:PATH, or fd with the descriptor of a socket,\n"
	"# which is passed. Replies when the machine has moved; with more also sends progress. on_timeout: cancel or\n"
	"# stop-and-copy; compress: none or zstd; copy_disks: none, writable or all\n"
	"method Migrate(to: string, downtime: ?float, downtime_limit: ?float, timeout: ?float, on_timeout: ?string,\n"
	"  throttle_max: ?int, bandwidth: ?int, device_rate: ?int, streams: ?int, compress: ?string, copy_disks: ?string,\n"
	"  tls: ?string, tls_peer: ?string) -> (migration: Migration)\n"
	"\n"
	"# The progress of the migration, or the result of the last one\n"
	"method MigrationStatus() -> (migration: Migration)\n"
	"method MigrationCancel() -> ()\n"
	"\n"
	"# If the state is unresolved: the guest continues here, or the machine ends here because it runs there. With yes also\n"
	"# if a disk's lock does not show that the other host does not write it\n"
	"method MigrationResolve(continue: bool, yes: ?bool) -> ()\n"
	"\n"
	"# state: memory, paused, closing, written, done. memory and content are bytes, times seconds\n"
	"type Snapshot (state: string, memory: int, content: int, passed: int, elapsed: float, disk_left: ?int, round: ?int,\n"
	"  left: ?int, dirty_rate: ?int, predicted: ?float, throttle: ?int, id: ?string, parent: ?string, pause: ?float,\n"
	"  reflinks: ?bool, text: ?string)\n"
	"\n"
	"# Takes a snapshot into files that are passed: files names each (state, memory, machine.json, kernel, initrd,\n"
	"# disks/ID). Needs more: sends progress; when the state is written, the caller syncs and names the files and calls\n"
	"# SnapshotCommit with the id, and this call is replied to. If its connection closes before, the snapshot is given\n"
	"# up. disks: reflink, copy or none; stop: the machine ends at the commit; live: memory is written while the guest\n"
	"# runs, which is then paused for no longer than downtime; track: for diffs of this one\n"
	"method Snapshot(files: []string, diff: ?bool, live: ?bool, track: ?bool, stop: ?bool, disks: ?string,\n"
	"  downtime: ?float, timeout: ?float) -> (snapshot: Snapshot)\n"
	"method SnapshotCommit(id: string) -> ()\n"
	"method SnapshotCancel() -> ()\n"
	"\n"
	"# A process that waits with a snapshot (its state is waiting) becomes a machine, which runs when this is replied to.\n"
	"# All parameters are optional; they are written as for mvmm restore. files: paths of disks whose descriptors are\n"
	"# passed, in their order\n"
	"method Restore(name: ?string, disks: ?[]string, nets: ?[]string, vsock: ?string, serial: ?string, console: ?string,\n"
	"  paused: ?bool, files: ?[]string) -> (name: string)\n"
	"\n"
	"error Failed (text: string)\n"
	"# Of Snapshot: there is no room for a file\n"
	"error NoSpace (text: string)\n";

/* Replies to a call, also for operations that end later. */
static void control_machine_finish(void *call, int code, const struct err *err)
{
	if (code)
		control_fail(call, err);
	else
		control_reply(call, NULL);
}

static void control_machine_call_pause(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	struct err err;

	if (machine->ops->pause(machine->session, control_machine_finish, call, &err))
		control_fail(call, &err);
}

static void control_machine_call_resume(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	struct err err;

	control_machine_finish(call, machine->ops->resume(machine->session, &err), &err);
}

static void control_machine_call_stop(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const json_t *force = json_object_get(parameters, "force");
	struct err err;

	if (force && !json_is_boolean(force) && !json_is_null(force))
		control_bad_parameter(call, "force");
	else
		control_machine_finish(call, machine->ops->stop(machine->session, json_is_true(force), &err), &err);
}

static void control_machine_call_ctrl_alt_del(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	struct err err;

	control_machine_finish(call, machine->ops->ctrl_alt_del(machine->session, &err), &err);
}

static void control_machine_call_info(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	json_t *info;
	struct err err;

	if (machine->ops->describe(machine->session, &info, &err))
		control_fail(call, &err);
	else
		control_reply(call, info);
}

static void control_machine_call_metrics(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	json_t *metrics;
	struct err err;

	if (machine->ops->metrics(machine->session, &metrics, &err))
		control_fail(call, &err);
	else
		control_reply(call, metrics);
}

static void control_machine_call_set_balloon(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const json_t *size = json_object_get(parameters, "size");
	json_int_t bytes = json_integer_value(size);
	struct err err;

	if (!json_is_integer(size) || bytes < 0)
		control_bad_parameter(call, "size");
	else
		control_machine_finish(call, machine->ops->set_balloon(machine->session, (uint64_t)bytes, &err), &err);
}

static void control_machine_call_set_limits(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const char *id = json_string_value(json_object_get(parameters, "id"));
	const char *limits = json_string_value(json_object_get(parameters, "limits"));
	struct err err;

	if (!id || !limits)
		control_bad_parameter(call, id ? "limits" : "id");
	else
		control_machine_finish(call, machine->ops->set_limits(machine->session, id, limits, &err), &err);
}

/* ---- migration ---- */

static json_t *control_machine_migration(const struct migration_report *report)
{
	return json_pack("{s:o*}", "migration", migration_report_json(report));
}

static void control_machine_migrating(void *opaque, const struct migration_report *report)
{
	control_progress(opaque, control_machine_migration(report));
}

static void control_machine_migrated(void *opaque, const struct migration_report *report)
{
	struct err err;

	if (report->state == MIGRATION_DONE) {
		control_reply(opaque, control_machine_migration(report));
		return;
	}
	err_set(&err, -EIO, "%s", report->text);
	control_fail(opaque, &err);
}

static void control_machine_call_migrate(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const struct migration_reply reply = {control_machine_migrating, control_machine_migrated, call};
	_cleanup_(fd_close) int fd = control_take_fd(call);
	struct migration_request request;
	const char *bad = migration_request_from_json(parameters, &request);
	struct err err;

	if (bad) {
		control_bad_parameter(call, bad);
		return;
	}
	if (strcmp(request.to, "fd") == 0 && fd < 0)
		control_bad_parameter(call, "to");
	else if (machine->ops->migrate(machine->session, &request, &fd, &reply, &err))
		control_fail(call, &err);
	migration_request_done(&request);
}

static void control_machine_call_migration_status(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;

	control_reply(call, control_machine_migration(machine->ops->migration_status(machine->session)));
}

static void control_machine_call_migration_cancel(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	struct err err;

	control_machine_finish(call, machine->ops->migration_cancel(machine->session, &err), &err);
}

static void control_machine_call_migration_resolve(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const json_t *go_on = json_object_get(parameters, "continue"), *yes = json_object_get(parameters, "yes");
	struct err err;

	if (!json_is_boolean(go_on))
		control_bad_parameter(call, "continue");
	else if (yes && !json_is_boolean(yes) && !json_is_null(yes))
		control_bad_parameter(call, "yes");
	else
		control_machine_finish(call, machine->ops->migration_resolve(machine->session, json_is_true(go_on),
									     json_is_true(yes), &err), &err);
}

/* ---- snapshots ---- */

static json_t *control_machine_snapshot(const struct snapshot_report *report)
{
	return json_pack("{s:o*}", "snapshot", snapshot_report_json(report));
}

static void control_machine_saving(void *opaque, const struct snapshot_report *report)
{
	control_progress(opaque, control_machine_snapshot(report));
}

static void control_machine_saved(void *opaque, const struct snapshot_report *report)
{
	struct err err;

	if (report->phase == SNAPSHOT_DONE) {
		control_reply(opaque, control_machine_snapshot(report));
		return;
	}
	err_set(&err, -EIO, "%s", report->text);
	control_fail_as(opaque, report->no_space ? "NoSpace" : "Failed", &err);
}

static void control_machine_asker_gone(void *opaque)
{
	const struct operated *machine = opaque;

	machine->ops->snapshot_cancel(machine->session, "mvmm snapshot has ended", NULL);
}

/* Where the descriptor of this name belongs; NULL: nowhere, or it is there already. */
static int *control_machine_file_for(struct snapshot_files *files, const char *name)
{
	const struct {
		const char *name;
		int *fd;
	} known[] = {
		{"state", &files->state}, {"memory", &files->memory}, {"machine.json", &files->description},
		{"kernel", &files->kernel}, {"initrd", &files->initrd},
	};
	struct snapshot_disk_file *disk = &files->disks[files->disk_count];

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(name, known[i].name) == 0)
			return *known[i].fd < 0 ? known[i].fd : NULL;
	if (strncmp(name, "disks/", 6) != 0 || machine_name_check(name + 6, NULL) ||
	    files->disk_count == ARRAY_SIZE(files->disks))
		return NULL;
	snprintf(disk->id, sizeof(disk->id), "%s", name + 6);
	files->disk_count++;
	return &disk->fd;
}

/* Takes the descriptors that came with the call. False: they do not fit to what `files` names. */
static bool control_machine_take_files(struct control_call *call, const json_t *names, struct snapshot_files *files)
{
	int fds[CONTROL_MAX_FDS];
	size_t count = control_take_fds(call, fds, ARRAY_SIZE(fds));
	bool good = json_is_array(names) && json_array_size(names) == count;

	for (size_t i = 0; i < count; i++) {
		const char *name = good ? json_string_value(json_array_get(names, i)) : NULL;
		int *to = name ? control_machine_file_for(files, name) : NULL;

		good = to;
		if (to)
			*to = fds[i];
		else
			close(fds[i]);
	}
	return good && files->state >= 0 && files->memory >= 0;
}

static void control_machine_call_snapshot(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const struct snapshot_reply reply = {control_machine_saving, control_machine_saved, call};
	struct snapshot_request request;
	const char *bad = snapshot_request_from_json(parameters, &request);
	struct snapshot_files files;
	struct err err;

	snapshot_files_init(&files);
	if (bad || !control_machine_take_files(call, json_object_get(parameters, "files"), &files))
		control_bad_parameter(call, bad ?: "files");
	else if (machine->ops->snapshot(machine->session, &request, &files, &reply, &err))
		control_fail(call, &err);
	else
		control_watch_client(call, control_machine_asker_gone, opaque);
	snapshot_files_close(&files);
}

static void control_machine_call_snapshot_commit(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	const char *id = json_string_value(json_object_get(parameters, "id"));
	struct err err;

	if (!id)
		control_bad_parameter(call, "id");
	else
		control_machine_finish(call, machine->ops->snapshot_commit(machine->session, id, &err), &err);
}

static void control_machine_call_snapshot_cancel(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	struct err err;

	control_machine_finish(call, machine->ops->snapshot_cancel(machine->session, "cancelled", &err), &err);
}

static bool control_machine_asker_left(const void *asker)
{
	return control_client_left(asker);
}

static void control_machine_call_restore(void *opaque, struct control_call *call, const json_t *parameters)
{
	const struct operated *machine = opaque;
	struct restore_request request;
	int fds[CONTROL_MAX_FDS];
	size_t count = control_take_fds(call, fds, ARRAY_SIZE(fds));
	const char *bad = restore_request_from_json(parameters, fds, count, &request), *name;
	struct err err;

	if (bad) {
		control_bad_parameter(call, bad);
		return;
	}
	request.asker_left = control_machine_asker_left;
	request.asker = call;
	if (machine->ops->restore(machine->session, &request, &name, &err))
		control_fail(call, &err);
	else
		control_reply(call, json_pack("{s:s}", "name", name));
	restore_request_done(&request);
}

static const struct control_method methods[] = {
	{"AddDevice", control_devices_add},
	{"AddDisk", control_devices_add_disk},
	{"AddNet", control_devices_add_net},
	{"CtrlAltDel", control_machine_call_ctrl_alt_del},
	{"Events", control_events_call},
	{"Info", control_machine_call_info},
	{"Metrics", control_machine_call_metrics},
	{"Migrate", control_machine_call_migrate},
	{"MigrationCancel", control_machine_call_migration_cancel},
	{"MigrationResolve", control_machine_call_migration_resolve},
	{"MigrationStatus", control_machine_call_migration_status},
	{"Pause", control_machine_call_pause},
	{"RemoveDevice", control_devices_remove},
	{"RemoveDisk", control_devices_remove_disk},
	{"RemoveNet", control_devices_remove_net},
	{"ReplaceDisk", control_devices_replace_disk},
	{"ResizeDisk", control_devices_resize_disk},
	{"Restore", control_machine_call_restore},
	{"Resume", control_machine_call_resume},
	{"SetBalloon", control_machine_call_set_balloon},
	{"SetLimits", control_machine_call_set_limits},
	{"SetLink", control_devices_set_link},
	{"Snapshot", control_machine_call_snapshot},
	{"SnapshotCancel", control_machine_call_snapshot_cancel},
	{"SnapshotCommit", control_machine_call_snapshot_commit},
	{"Stop", control_machine_call_stop},
};

static const struct control_interface interface = {"io.mvmm.Machine", description, methods, ARRAY_SIZE(methods)};

int control_machine_create(const struct operated *machine, struct event_loop *loop, int *listen_fd,
			   const struct log *log, struct control **ret, struct err *err)
{
	return control_create(loop, listen_fd, &interface, (void *)machine, log, ret, err);
}
