/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a session's machine, for those who watch it (operations.watch_events) and for the metrics: each event is
 * counted and given to each watcher, on the loop's thread. Whoever may cause events at will, as a guest whose disk fails,
 * is bounded where they arise. docs/control.md lists them. See session_internal.h.
 */
#include "vmm/session/session_internal.h"

#include "core/utc.h"
#include "devices/virtio/virtio.h"
#include "vmm/machine/machine_metrics.h"
#include "vmm/snapshot/snapshot_report.h"
#include "vmm/snapshot/state_file.h"

static const char *const names[] = {
	[SESSION_STARTED] = "started", [SESSION_REBOOTED] = "rebooted", [SESSION_PAUSED] = "paused",
	[SESSION_RESUMED] = "resumed", [SESSION_BUTTON] = "power-button", [SESSION_DEVICE_ADDED] = "device-added",
	[SESSION_DEVICE_REMOVED] = "device-removed", [SESSION_DISK_ERROR] = "disk-error",
	[SESSION_DISK_RESIZED] = "disk-resized", [SESSION_DISK_REPLACED] = "disk-replaced",
	[SESSION_LIMITS_CHANGED] = "limits-changed", [SESSION_LINK_UP] = "link-up", [SESSION_LINK_DOWN] = "link-down",
	[SESSION_MIGRATION] = "migration", [SESSION_SNAPSHOT] = "snapshot",
	[SESSION_GUEST_PANIC] = "guest-panic", [SESSION_ENDED] = "ended",
};

static json_t *session_events_make(const struct session *session, const char *name)
{
	char time[UTC_TEXT];

	return json_pack("{s:s, s:s, s:s}", "time", utc_now(time), "name", session->config->name, "event", name);
}

/* Without memory for it, an event is not shown. */
void session_event(struct session *session, enum session_event event, json_t *details)
{
	struct event_watcher *next;
	json_t *object;

	session->events.counts[event]++;
	object = session->events.watchers ? session_events_make(session, names[event]) : NULL;
	if (object && details)
		json_object_update(object, details);
	for (struct event_watcher *watcher = object ? session->events.watchers : NULL; watcher; watcher = next) {
		next = watcher->next; /* it may go away now */
		watcher->event(watcher->opaque, object);
	}
	json_decref(object);
	json_decref(details);
}

void session_event_device(struct session *session, enum session_event event, const char *id)
{
	session_event(session, event, json_pack("{s:s}", "id", id));
}

/* The state first, so that a client knows where it stands, and that it misses nothing from now on. */
int session_events_watch(struct session *session, const char *state, struct event_watcher *watcher, struct err *err)
{
	json_t *object = session_events_make(session, "state");

	if (!object || json_object_set_new(object, "state", json_string(state))) {
		json_decref(object);
		return err_sys(err, -ENOMEM, "events");
	}
	watcher->next = session->events.watchers;
	session->events.watchers = watcher;
	watcher->event(watcher->opaque, object);
	json_decref(object);
	return 0;
}

void session_events_unwatch(struct session *session, struct event_watcher *watcher)
{
	struct event_watcher **link = &session->events.watchers;

	while (*link && *link != watcher)
		link = &(*link)->next;
	if (*link)
		*link = watcher->next;
}

void session_events_metrics(const struct session *session, struct metrics *metrics)
{
	metrics_begin(metrics, METRICS_COUNTER, "mvmm_events_total", "What has happened to the machine, as in mvmm events");
	for (unsigned int event = 0; event < SESSION_EVENTS; event++)
		if (session->events.counts[event])
			metrics_add(metrics, metrics_labels({"event", names[event]}), session->events.counts[event]);
	if (session->events.downtime) {
		metrics_begin(metrics, METRICS_GAUGE, "mvmm_migration_downtime_seconds", "Of the migration");
		metrics_add_real(metrics, NULL, (double)session->events.downtime / 1e9);
	}
	if (session->events.pause) {
		metrics_begin(metrics, METRICS_GAUGE, "mvmm_snapshot_pause_seconds",
			      "How long the last snapshot has kept the guest from running");
		metrics_add_real(metrics, NULL, (double)session->events.pause / 1e9);
	}
}

/* ---- what others tell the session ---- */

void session_events_ended(struct session *session)
{
	static const char *const reasons[] = {
		[MACHINE_RUNNING] = "failed", [MACHINE_OFF] = "off", [MACHINE_REBOOT] = "reboot", [MACHINE_PANIC] = "panic",
		[MACHINE_STOPPED] = "stopped", [MACHINE_FAILED] = "failed",
	};
	enum machine_end end = session->machine ? machine_end(session->machine) : MACHINE_FAILED;

	session_event(session, SESSION_ENDED, json_pack("{s:s}", "reason", session->gone ? "moved" : reasons[end]));
}

void session_events_migration(void *opaque, const struct migration_report *report)
{
	struct session *session = opaque;
	json_t *details = json_pack("{s:s}", "state", migration_state_word(report->state));

	if (report->text[0])
		json_object_set_new(details, "text", json_string(report->text));
	if (report->state == MIGRATION_DONE) {
		session->events.downtime = report->downtime;
		json_object_set_new(details, "downtime", json_real((double)report->downtime / 1e9));
	}
	session_event(session, SESSION_MIGRATION, details);
}

void session_events_snapshot(void *opaque, const struct snapshot_report *report)
{
	json_t *details = json_pack("{s:s}", "state", snapshot_phase_word(report->phase));
	struct session *session = opaque;
	char id[SNAPSHOT_ID_TEXT];

	if (report->text[0])
		json_object_set_new(details, "text", json_string(report->text));
	if (report->phase == SNAPSHOT_DONE) {
		session->events.pause = report->pause;
		snapshot_id_text(report->id, id);
		json_object_set_new(details, "id", json_string(id));
		json_object_set_new(details, "pause", json_real((double)report->pause / 1e9));
	}
	session_event(session, SESSION_SNAPSHOT, details);
}

void session_events_disk(void *opaque, const char *id, const struct virtio_blk_health *health)
{
	session_event(opaque, SESSION_DISK_ERROR, json_pack("{s:s, s:I, s:s}", "id", id, "failed",
							     (json_int_t)health->failed, "last", health->last));
}
