/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_operations.h. */
#include "tests/unit/fake_operations.h"
#include "vmm/snapshot/restore_request.h"
#include "vmm/snapshot/snapshot_take.h"

#include <stdio.h>
#include <sys/socket.h>

struct asked asked = {.asker = -1};

static int fake_start(struct session *session, struct start_request *request,
		      void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	return err_set(err, -EBUSY, "runs already");
}

static int fake_pause(struct session *session, void (*done)(void *opaque, int code, const struct err *err), void *opaque,
		      struct err *err)
{
	asked.paused++;
	asked.pause_done = done;
	asked.pause_opaque = opaque;
	if (!asked.pause_waits)
		done(opaque, 0, NULL);
	return 0;
}

static int fake_resume(struct session *session, struct err *err)
{
	return err_set(err, -EBUSY, "not now");
}

static int fake_stop(struct session *session, bool force, struct err *err)
{
	asked.stopped++;
	asked.forced += force;
	return 0;
}

static int fake_describe(struct session *session, json_t **ret, struct err *err)
{
	*ret = json_pack("{s:s}", "state", "running");
	return 0;
}

static int fake_set_balloon(struct session *session, uint64_t bytes, struct err *err)
{
	asked.balloon = bytes;
	return 0;
}

/* "late" fails after it has begun. */
static int fake_add_device(struct session *session, const char *option, const char *vfio, struct vfio_given *given,
			   const struct add_device_reply *reply, struct err *err)
{
	if (strcmp(option, "vfio") != 0)
		return err_set(err, -EINVAL, "--%s: no such option", option);
	if (strcmp(vfio, "x") == 0)
		return err_set(err, -ENODEV, "no such device");
	reply->progress(reply->opaque, "map", 4096, 8192);
	if (strcmp(vfio, "late") == 0)
		reply->done(reply->opaque, NULL, err_set(err, -EIO, "it fails"), err);
	else
		reply->done(reply->opaque, "vfio0", 0, NULL);
	return 0;
}

static int fake_resize_disk(struct session *session, const char *id, uint64_t *bytes, struct err *err)
{
	*bytes = MIB(3);
	return strcmp(id, "disk0") == 0 ? 0 : err_set(err, -ENODEV, "no such disk");
}

static int fake_set_limits(struct session *session, const char *id, const char *limits, struct err *err)
{
	return strcmp(limits, "ops=5") == 0 ? 0 : err_set(err, -EINVAL, "%s: %s: no limit", id, limits);
}

/* One called "kept" has been taken. */
static int fake_add_passed(struct session *session, const char *option, json_t *device, int *fds, size_t count,
			   const struct add_device_reply *reply, struct err *err)
{
	const char *id = json_string_value(json_object_get(device, "id"));

	asked.fds = (unsigned int)count;
	if (!id)
		return err_set(err, -EINVAL, "--%s: no id", option);
	for (size_t i = 0; i < count && strcmp(id, "kept") == 0; i++)
		close(take_fd(&fds[i]));
	reply->done(reply->opaque, id, 0, NULL);
	return 0;
}

static int fake_replace_disk(struct session *session, const char *id, const char *path, int *fds, size_t count,
			     void (*done)(void *opaque, uint64_t bytes, int code, const struct err *err), void *opaque,
			     struct err *err)
{
	asked.fds = (unsigned int)count;
	if (strcmp(path, "/slow") == 0)
		done(opaque, 0, err_set(err, -ETIMEDOUT, "its storage does not answer"), err);
	else
		done(opaque, MIB(5), 0, NULL);
	return 0;
}

static int fake_ctrl_alt_del(struct session *session, struct err *err)
{
	return err_set(err, -EOPNOTSUPP, "has no keyboard");
}

static int fake_set_link(struct session *session, const char *id, bool plugged, struct err *err)
{
	return plugged ? 0 : err_set(err, -ENODEV, "no such card");
}

/* "slow" stays. */
static int fake_remove_device(struct session *session, const char *kind, const char *id, bool force,
			      unsigned int timeout_ms, void (*done)(void *opaque, int code, const struct err *err),
			      void *opaque, struct err *err)
{
	if (strcmp(id, "kind") == 0)
		return err_set(err, -ENOENT, "no such %s", kind);
	if (strcmp(id, "none") == 0)
		return err_set(err, -ENOENT, "no such device");
	if (strcmp(id, "slow") == 0 && !force)
		done(opaque, err_set(err, -ETIMEDOUT, "it stays"), err);
	else
		done(opaque, 0, NULL);
	return 0;
}

/* Goes to tcp:there alone, by way of its memory. */
static int fake_migrate(struct session *session, struct migration_request *request, int *fd,
			const struct migration_reply *reply, struct err *err)
{
	bool there = strcmp(request->to, "tcp:there") == 0;
	struct migration_report report = {.state = MIGRATION_MEMORY};

	if (strcmp(request->to, "tcp:busy") == 0)
		return err_set(err, -EBUSY, "is paused");
	reply->progress(reply->opaque, &report);
	report.state = there ? MIGRATION_DONE : MIGRATION_FAILED;
	snprintf(report.text, sizeof(report.text), "%s", there ? "" : "nobody listens");
	reply->done(reply->opaque, &report);
	return 0;
}

static const struct migration_report *fake_migration_status(struct session *session)
{
	static const struct migration_report report = {.state = MIGRATION_UNRESOLVED, .text = "who knows"};

	return &report;
}

static int fake_migration_cancel(struct session *session, struct err *err)
{
	return 0;
}

static int fake_migration_resolve(struct session *session, bool go_on, bool sure, struct err *err)
{
	return go_on ? 0 : err_set(err, -EINVAL, "there is nothing to resolve");
}

static int fake_snapshot(struct session *session, const struct snapshot_request *request, struct snapshot_files *files,
			 const struct snapshot_reply *reply, struct err *err)
{
	const struct snapshot_report report = {.phase = request->live ? SNAPSHOT_DONE : SNAPSHOT_FAILED};

	if (request->live && asked.paused)
		return err_set(err, -EBUSY, "is paused");
	reply->progress(reply->opaque, &report);
	reply->done(reply->opaque, &report);
	return 0;
}

static int fake_snapshot_commit(struct session *session, const char *id, struct err *err)
{
	return err_set(err, -EINVAL, "nothing waits for it");
}

static int fake_snapshot_cancel(struct session *session, const char *reason, struct err *err)
{
	return 0;
}

static int fake_restore(struct session *session, struct restore_request *request, const char **name, struct err *err)
{
	if (asked.asker >= 0) {
		asked.asker_was_there = !request->asker_left(request->asker);
		shutdown(asked.asker, SHUT_RDWR);
		asked.asker_left = request->asker_left(request->asker);
	}
	*name = request->here.name ?: "machine";
	return request->here.disk_count == 1 ? 0 : err_set(err, -EINVAL, "there is one disk");
}

static int fake_metrics(struct session *session, json_t **ret, struct err *err)
{
	*ret = json_pack("{s:s, s:[]}", "name", "m", "families");
	return *ret ? 0 : err_set(err, -ENOMEM, "metrics");
}

/* Two events at once; the second one finds whoever cannot take more. */
static int fake_watch_events(struct session *session, struct event_watcher *watcher, struct err *err)
{
	json_t *event = json_pack("{s:s, s:s}", "name", "m", "event", "state");

	if (!event)
		return err_set(err, -ENOMEM, "events");
	watcher->event(watcher->opaque, event);
	watcher->event(watcher->opaque, event);
	json_decref(event);
	return 0;
}

static void fake_unwatch_events(struct session *session, struct event_watcher *watcher)
{
}

const struct operations fake_operations = {
	.start = fake_start,
	.describe = fake_describe,
	.metrics = fake_metrics,
	.watch_events = fake_watch_events,
	.unwatch_events = fake_unwatch_events,
	.pause = fake_pause,
	.resume = fake_resume,
	.stop = fake_stop,
	.set_balloon = fake_set_balloon,
	.resize_disk = fake_resize_disk,
	.set_limits = fake_set_limits,
	.add_device = fake_add_device,
	.add_passed = fake_add_passed,
	.replace_disk = fake_replace_disk,
	.set_link = fake_set_link,
	.ctrl_alt_del = fake_ctrl_alt_del,
	.remove_device = fake_remove_device,
	.migrate = fake_migrate,
	.migration_status = fake_migration_status,
	.migration_cancel = fake_migration_cancel,
	.migration_resolve = fake_migration_resolve,
	.snapshot = fake_snapshot,
	.snapshot_commit = fake_snapshot_commit,
	.snapshot_cancel = fake_snapshot_cancel,
	.restore = fake_restore,
};
