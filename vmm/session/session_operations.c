/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of a session's machine (machine/operations.h), and its control socket. While the machine arrives or is
 * being migrated, operations that would interfere fail with the reason.
 */
#include "vmm/session/session_internal.h"

#include "core/monotonic.h"
#include "devices/virtio/virtio.h"
#include "vmm/config/config_json.h"
#include "vmm/control/control_machine.h"
#include "vmm/machine/machine_info.h"

#include <fcntl.h>

static int session_operations_pause(struct session *session,
				    void (*done)(void *opaque, int code, const struct err *err), void *opaque,
				    struct err *err)
{
	int code = session_check_settled(session, err);

	return code ?: session_pause_begin(session, done, opaque, err);
}

static int session_operations_resume(struct session *session, struct err *err)
{
	int code;

	session_pause_cancel(session, "it was resumed meanwhile");
	code = session_check_settled(session, err);
	if (code || !machine_paused(session->machine))
		return code;
	machine_resume(session->machine);
	session_tell_manager(session);
	session_event(session, SESSION_RESUMED, NULL);
	return 0;
}

int session_press_button(struct session *session, struct err *err)
{
	if (outgoing_cancel(session->outgoing, "its power button was pressed", NULL) == -EBUSY)
		return err_set(err, -EBUSY, "was handed over to %s, which is about to run it; stop it there",
			       outgoing_to(session->outgoing));
	snapshot_thread_cancel(session->snapshot, "its power button was pressed", NULL);
	session->pressed = true;
	session_event(session, SESSION_BUTTON, NULL);
	machine_power_button(session->machine);
	return 0;
}

/* Ends this side in any case. It is not the end of a guest that was handed over. */
static int session_operations_end(struct session *session, struct err *err)
{
	bool handed_over = outgoing_cancel(session->outgoing, "the machine was ended", NULL) == -EBUSY;

	snapshot_thread_cancel(session->snapshot, "the machine was ended", NULL);
	session_stop_machine(session);
	return handed_over ? err_set(err, -EBUSY, "was handed over to %s, which is about to run it; it ends here only",
				     outgoing_to(session->outgoing)) : 0;
}

static int session_operations_stop(struct session *session, bool force, struct err *err)
{
	if (force || session->resting || session->waiting)
		return session_operations_end(session, err);
	if (session->arriving || outgoing_report(session->outgoing)->state == MIGRATION_UNRESOLVED)
		return session_check_settled(session, err);
	if (!outgoing_active(session->outgoing) && !snapshot_thread_active(session->snapshot) &&
	    machine_paused(session->machine))
		return err_set(err, -EBUSY,
			       "is paused and ignores its power button; resume it first, or use --force");
	return session_press_button(session, err);
}

static int session_operations_ctrl_alt_del(struct session *session, struct err *err)
{
	int code = session_check_settled(session, err);

	if (!code && machine_paused(session->machine))
		code = err_set(err, -EBUSY, "is paused and reads no keys; resume it first");
	return code ?: machine_ctrl_alt_del(session->machine, err);
}

static void session_operations_add_limits(const struct machine_config *config, json_t *devices)
{
	json_t *device;
	size_t i;

	json_array_foreach(devices, i, device)
		machine_config_print_limits(config, json_string_value(json_object_get(device, "id")), device);
}

static int session_operations_describe(struct session *session, json_t **ret, struct err *err)
{
	const struct machine_config *config = session->config;
	double uptime = (double)((monotonic_ns() - session->started_ns) / 1000000) / 1e3;
	json_t *info = json_pack("{s:s, s:i, s:i, s:I, s:f, s:s}", "name", config->name, "pid", (int)(session->rundir ? rundir_pid(session->rundir) : getpid()), "cpus",
				 (int)config->cpus, "memory", (json_int_t)config->memory.size, "uptime", uptime,
				 "state", session_state(session));
	int code = info ? machine_info(session->machine, info, err) : err_sys(err, -ENOMEM, "info");

	if (code) {
		json_decref(info);
		return code;
	}
	session_operations_add_limits(config, json_object_get(info, "devices"));
	*ret = info;
	return 0;
}

static int session_operations_metrics(struct session *session, json_t **ret, struct err *err)
{
	json_t *families;
	int code = session_metrics_get(session, session_state(session), &families, err);

	if (code)
		return code;
	*ret = json_pack("{s:s, s:o}", "name", session->config->name, "families", families);
	return *ret ? 0 : err_sys(err, -ENOMEM, "metrics");
}

static int session_operations_watch_events(struct session *session, struct event_watcher *watcher, struct err *err)
{
	return session_events_watch(session, session_state(session), watcher, err);
}

static int session_operations_set_balloon(struct session *session, uint64_t bytes, struct err *err)
{
	struct virtio_device *balloon = machine_balloon(session->machine);

	if (bytes > session->config->memory.size)
		return err_set(err, -ERANGE, "the guest has no more than %llu bytes of memory",
			       (unsigned long long)session->config->memory.size);
	if (session->arriving) /* the state to come has its own target */
		return session_check_settled(session, err);
	if (!balloon)
		return err_set(err, -ENODEV, "has no balloon; start it with --balloon on");
	virtio_balloon_set_target(balloon, bytes);
	return 0;
}

static int session_operations_set_limits(struct session *session, const char *id, const char *text, struct err *err)
{
	struct machine_limits limits;
	int code = session_check_settled(session, err);

	code = code ?: machine_config_set_limits(session->config, id, text, &limits, err);
	if (code)
		return code;
	machine_set_limits(session->machine, id, &limits);
	session_event_device(session, SESSION_LIMITS_CHANGED, id);
	return 0;
}

/* ---- migration ---- */

static void session_operations_machine_gone(void *opaque)
{
	struct session *session = opaque;

	session->gone = true;
	machine_stop(session->machine);
}

static void session_operations_machine_stays(void *opaque)
{
	struct session *session = opaque;

	session_tell_manager(session);
	if (session->disk_failed)
		session_stop_for_disk(session);
}

/* Who asks makes the connections. Without him, this process makes those that its user has let it make. */
static int session_operations_reach(const struct session *session, const struct migration_request *request, int *ret,
				    struct err *err)
{
	if (request->tls)
		return session_reach_refuse(request->tls, err);
	if (strncmp(request->to, "unix:", 5) == 0)
		return session_reach_open(session, request->to + 5, O_PATH, ret, err);
	return session->jail ? err_set(err, -ENETUNREACH, "this machine is in a jail and has no network: mvmm migrate makes its "
				       "connections; another client passes a connection (to: fd), or a socket to ask for them") : 0;
}

static int session_operations_migrate(struct session *session, struct migration_request *request, int *fd,
				      const struct migration_reply *reply, struct err *err)
{
	_cleanup_(fd_close) int reached = -1;
	const struct outgoing_host host = {
		.loop = session->loop, .log = &session->log, .machine = session->machine,
		.name = session->config->name, .reached = &reached, .gone = session_operations_machine_gone,
		.stays = session_operations_machine_stays, .changed = session_events_migration, .opaque = session,
	};
	int code = session_check_settled(session, err) ?: machine_check_disks(session->machine, err);

	if (!code && *fd < 0)
		code = session_operations_reach(session, request, &reached, err);
	if (code)
		return code;
	outgoing_destroy(take_ptr(session->outgoing), NULL); /* only its report was needed */
	code = outgoing_create(&host, request, fd, reply, &session->outgoing, err);
	session_tell_manager(session);
	return code;
}

static const struct migration_report *session_operations_migration_status(struct session *session)
{
	return outgoing_report(session->outgoing);
}

static int session_operations_migration_cancel(struct session *session, struct err *err)
{
	return outgoing_cancel(session->outgoing, "cancelled", err);
}

static int session_operations_migration_resolve(struct session *session, bool go_on, bool sure, struct err *err)
{
	return outgoing_resolve(session->outgoing, go_on, sure, err);
}

static int session_operations_restore(struct session *session, struct restore_request *request, const char **name,
				      struct err *err)
{
	if (!session->waiting)
		return err_set(err, -EINVAL, "does not wait with a snapshot; start one that does with mvmm restore --wait");
	return session->asked(session, request, name, err);
}

static int session_operations_start(struct session *session, struct start_request *request,
				    void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	if (!session->start)
		return err_set(err, -EBUSY, "runs already");
	return session->start(session, request, done, opaque, err);
}

static const struct operations operations = {
	.start = session_operations_start,
	.describe = session_operations_describe,
	.metrics = session_operations_metrics,
	.watch_events = session_operations_watch_events,
	.unwatch_events = session_events_unwatch,
	.pause = session_operations_pause,
	.resume = session_operations_resume,
	.stop = session_operations_stop,
	.ctrl_alt_del = session_operations_ctrl_alt_del,
	.set_balloon = session_operations_set_balloon,
	.set_limits = session_operations_set_limits,
	.resize_disk = session_devices_resize_disk,
	.replace_disk = session_devices_replace_disk,
	.set_link = session_devices_set_link,
	.add_device = session_devices_add,
	.add_passed = session_devices_add_passed,
	.remove_device = session_devices_remove,
	.migrate = session_operations_migrate,
	.migration_status = session_operations_migration_status,
	.migration_cancel = session_operations_migration_cancel,
	.migration_resolve = session_operations_migration_resolve,
	.restore = session_operations_restore,
	.snapshot = session_snapshot,
	.snapshot_commit = session_snapshot_commit,
	.snapshot_cancel = session_snapshot_cancel,
};

/* Sockets on which the service manager has listened until now. */
static int session_operations_serve_more(struct session *session, struct err *err)
{
	int code = 0;

	for (int fd; !code && (fd = service_take_socket(&session->service)) >= 0; fd_close(&fd))
		code = control_listen_more(session->control, &fd, err);
	return code;
}

void session_operate(struct session *session)
{
	session->operated = (struct operated){.ops = &operations, .session = session};
	session->started_ns = monotonic_ns();
}

int session_open_control(struct session *session, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	int code;

	session_operate(session);
	if (!session->rundir)
		return session_metrics_open(session, err);
	code = rundir_listen(session->rundir, &fd, err);
	code = code ?: control_machine_create(&session->operated, session->loop, &fd, &session->log, &session->control,
					      err);
	code = code ?: session_metrics_open(session, err);
	code = code ?: session_operations_serve_more(session, err);
	return code ?: session_folder_watch(session, err);
}
