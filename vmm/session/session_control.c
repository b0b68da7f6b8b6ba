/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the control socket asks of a session. A machine that arrives or goes keeps its shape meanwhile: what would be in the way
 * is refused with the reason.
 */
#include "vmm/session/session_internal.h"

#include "devices/virtio/virtio.h"
#include "vmm/machine/host_devices.h"
#include "vmm/machine/machine_info.h"

/* 0, or why the machine cannot be changed now. */
static int session_control_check_settled(const struct session *session, struct err *err)
{
	if (session->arriving)
		return err_set(err, -EBUSY, "is still arriving from another host");
	if (!outgoing_active(session->outgoing))
		return 0;
	if (outgoing_report(session->outgoing)->state == MIGRATION_UNRESOLVED)
		return err_set(err, -EBUSY, "may run on another host already; mvmm migrate --resolve continue|end decides");
	return err_set(err, -EBUSY, "is being migrated; mvmm migrate --cancel ends that");
}

static int session_control_do_pause(void *opaque, struct err *err)
{
	struct session *session = opaque;
	int code = session_control_check_settled(session, err);

	if (!code)
		machine_pause(session->machine);
	return code;
}

static int session_control_do_resume(void *opaque, struct err *err)
{
	struct session *session = opaque;
	int code = session_control_check_settled(session, err);

	if (!code)
		machine_resume(session->machine);
	return code;
}

void session_press_button(struct session *session)
{
	outgoing_cancel(session->outgoing, "its power button was pressed", NULL);
	machine_power_button(session->machine);
}

static int session_control_do_stop(void *opaque, bool force, struct err *err)
{
	struct session *session = opaque;

	if (force)
		machine_stop(session->machine);
	else if (session->arriving || outgoing_report(session->outgoing)->state == MIGRATION_UNRESOLVED)
		return session_control_check_settled(session, err);
	else if (outgoing_active(session->outgoing))
		session_press_button(session);
	else if (machine_paused(session->machine))
		return err_set(err, -EBUSY, "is paused and cannot heed its power button; resume it first, or use --force");
	else
		machine_power_button(session->machine);
	return 0;
}

static int session_control_do_info(void *opaque, json_t *info, struct err *err)
{
	struct session *session = opaque;
	const char *state = session->arriving ? "arriving" : machine_paused(session->machine) ? "paused" : "running";

	if (outgoing_active(session->outgoing))
		state = outgoing_report(session->outgoing)->state == MIGRATION_UNRESOLVED ? "unresolved" : "migrating";
	if (json_object_set_new(info, "state", json_string(state)))
		return err_sys(err, -ENOMEM, "info");
	return machine_info(session->machine, info, err);
}

static int session_control_do_balloon(void *opaque, uint64_t bytes, struct err *err)
{
	struct session *session = opaque;
	struct virtio_device *balloon = machine_balloon(session->machine);

	if (session->arriving) /* what comes has its own target */
		return session_control_check_settled(session, err);
	if (!balloon)
		return err_set(err, -ENODEV, "has no balloon; start it with --balloon on");
	virtio_balloon_set_target(balloon, bytes);
	return 0;
}

/* The configuration takes part, so that the device is there again after a reboot. */
static int session_control_do_add_device(void *opaque, const char *vfio, const char **id, struct err *err)
{
	struct session *session = opaque;
	struct machine_config *config = session->config;
	const struct vfio_config *added;
	int code = session_control_check_settled(session, err) ?: machine_config_add_vfio(config, vfio, err);

	if (code)
		return code;
	added = &config->vfios[config->vfio_count - 1];
	code = host_devices_add(machine_host_devices(session->machine), added, err);
	*id = added->id;
	if (code)
		machine_config_remove_vfio(config, added->id);
	return code;
}

static int session_control_do_remove_device(void *opaque, const char *id, bool force, unsigned int timeout_ms,
					    void (*done)(void *opaque, int code, const struct err *err), void *done_opaque, struct err *err)
{
	struct session *session = opaque;
	int code = session_control_check_settled(session, err);

	return code ?: host_devices_remove(machine_host_devices(session->machine), id, force, timeout_ms, done, done_opaque, err);
}

/* ---- migration ---- */

static void session_control_machine_gone(void *opaque)
{
	struct session *session = opaque;

	session->gone = true;
	machine_stop(session->machine);
}

static int session_control_do_migrate(void *opaque, struct migration_request *request, int *fd, struct control_call *call, struct err *err)
{
	struct session *session = opaque;
	const struct outgoing_host host = {
		.loop = session->loop, .log = &session->log, .machine = session->machine,
		.name = session->config->name, .gone = session_control_machine_gone, .opaque = session,
	};
	int code = session_control_check_settled(session, err);

	if (!code) {
		outgoing_destroy(take_ptr(session->outgoing), NULL); /* the last one's report */
		code = outgoing_create(&host, request, fd, call, &session->outgoing, err);
	}
	migration_request_done(request);
	return code;
}

static json_t *session_control_do_migration_status(void *opaque)
{
	struct session *session = opaque;

	return migration_report_json(outgoing_report(session->outgoing));
}

static int session_control_do_migration_cancel(void *opaque, struct err *err)
{
	struct session *session = opaque;

	return outgoing_cancel(session->outgoing, "cancelled", err);
}

static int session_control_do_migration_resolve(void *opaque, bool go_on, struct err *err)
{
	struct session *session = opaque;

	return outgoing_resolve(session->outgoing, go_on, err);
}

static const struct control_ops control_ops = {
	.pause = session_control_do_pause,
	.resume = session_control_do_resume,
	.stop = session_control_do_stop,
	.info = session_control_do_info,
	.balloon = session_control_do_balloon,
	.add_device = session_control_do_add_device,
	.remove_device = session_control_do_remove_device,
	.migrate = session_control_do_migrate,
	.migration_status = session_control_do_migration_status,
	.migration_cancel = session_control_do_migration_cancel,
	.migration_resolve = session_control_do_migration_resolve,
};

int session_open_control(struct session *session, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	int code = rundir_listen(session->rundir, &fd, err);

	session->api = (struct control_machine){.config = session->config, .ops = &control_ops, .machine = session};
	return code ?: control_machine_create(&session->api, session->loop, &fd, &session->log, &session->control, err);
}
