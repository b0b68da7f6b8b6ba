/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_report.h. */
#include "vmm/snapshot/snapshot_report.h"

#include "vmm/migration/request.h"
#include "vmm/snapshot/state_file.h"

const char *const snapshot_disks_words[] = {
	[SNAPSHOT_DISKS_REFLINK] = "reflink", [SNAPSHOT_DISKS_COPY] = "copy", [SNAPSHOT_DISKS_NONE] = "none", NULL,
};

static const char *const phase_words[] = {
	[SNAPSHOT_NONE] = "none",       [SNAPSHOT_ROUNDS] = "memory",   [SNAPSHOT_PAUSED] = "paused",
	[SNAPSHOT_CLOSING] = "closing", [SNAPSHOT_WRITTEN] = "written", [SNAPSHOT_DONE] = "done",
	[SNAPSHOT_FAILED] = "failed",
};

const char *snapshot_phase_word(enum snapshot_phase phase)
{
	return phase_words[phase];
}

static double snapshot_report_seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static bool snapshot_report_add(json_t *object, json_t *members)
{
	bool good = members && json_object_update(object, members) == 0;

	json_decref(members);
	return good;
}

static bool snapshot_report_add_rounds(json_t *object, const struct migration_progress *progress)
{
	return snapshot_report_add(object, json_pack("{s:i, s:I, s:I, s:f, s:i}", "round", (int)progress->round, "left",
						     (json_int_t)progress->left, "dirty_rate",
						     (json_int_t)progress->dirty_rate, "predicted",
						     snapshot_report_seconds(progress->predicted), "throttle",
						     (int)progress->throttle));
}

static bool snapshot_report_add_result(json_t *object, const struct snapshot_report *report)
{
	char id[37], parent[37];

	snapshot_id_text(report->id, id);
	snapshot_id_text(report->parent, parent);
	return snapshot_report_add(object, json_pack("{s:s, s:s, s:f, s:b}", "id", id, "parent", parent, "pause",
						     snapshot_report_seconds(report->pause), "reflinks",
						     report->reflinks));
}

json_t *snapshot_report_json(const struct snapshot_report *report)
{
	json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:f}", "state", phase_words[report->phase], "memory",
				   (json_int_t)report->memory, "content", (json_int_t)report->content, "passed",
				   (json_int_t)report->passed, "elapsed", snapshot_report_seconds(report->elapsed));
	bool good = object;

	if (good && report->disk_left)
		good = json_object_set_new(object, "disk_left", json_integer((json_int_t)report->disk_left)) == 0;
	if (good && report->progress.round)
		good = snapshot_report_add_rounds(object, &report->progress);
	if (good && (report->phase == SNAPSHOT_WRITTEN || report->phase == SNAPSHOT_DONE))
		good = snapshot_report_add_result(object, report);
	if (good && report->text[0])
		good = json_object_set_new(object, "text", json_string(report->text)) == 0;
	if (good)
		return object;
	json_decref(object);
	return NULL;
}

/* ---- the request ---- */

static const struct {
	const char *name;
	size_t offset;
} flags[] = {
	{"diff", offsetof(struct snapshot_request, diff)},
	{"live", offsetof(struct snapshot_request, live)},
	{"stop", offsetof(struct snapshot_request, stop)},
	{"track", offsetof(struct snapshot_request, track)},
};

json_t *snapshot_request_to_json(const struct snapshot_request *request)
{
	return json_pack("{s:b, s:b, s:b, s:b, s:s, s:f, s:f}", "diff", request->diff, "live", request->live, "stop",
			 request->stop, "track", request->track, "disks", snapshot_disks_words[request->disks], "downtime",
			 snapshot_report_seconds(request->goal.downtime), "timeout",
			 snapshot_report_seconds(request->goal.timeout));
}

static bool snapshot_report_get_time(const json_t *parameters, const char *name, uint64_t *ret)
{
	const json_t *value = json_object_get(parameters, name);
	double seconds = json_number_value(value);

	if (!value || json_is_null(value))
		return true;
	if (!json_is_number(value) || !(seconds >= 0 && seconds <= 86400.0 * 365))
		return false;
	*ret = (uint64_t)(seconds * 1e9);
	return true;
}

static bool snapshot_report_get_disks(const json_t *parameters, enum snapshot_disks *ret)
{
	const json_t *value = json_object_get(parameters, "disks");

	for (int i = 0; value && !json_is_null(value) && snapshot_disks_words[i]; i++) {
		if (json_is_string(value) && strcmp(json_string_value(value), snapshot_disks_words[i]) == 0) {
			*ret = (enum snapshot_disks)i;
			return true;
		}
	}
	return !value || json_is_null(value);
}

const char *snapshot_request_from_json(const json_t *parameters, struct snapshot_request *ret)
{
	struct snapshot_request request = {
		.goal = {.downtime = MIGRATION_DEFAULT_DOWNTIME, .aim = SNAPSHOT_AIM, .timeout = MIGRATION_DEFAULT_TIMEOUT,
			 .throttle_max = MIGRATION_DEFAULT_THROTTLE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		const json_t *value = json_object_get(parameters, flags[i].name);

		if (value && !json_is_boolean(value) && !json_is_null(value))
			return flags[i].name;
		*(bool *)((char *)&request + flags[i].offset) = json_is_true(value);
	}
	if (!snapshot_report_get_disks(parameters, &request.disks))
		return "disks";
	if (!snapshot_report_get_time(parameters, "downtime", &request.goal.downtime))
		return "downtime";
	if (!snapshot_report_get_time(parameters, "timeout", &request.goal.timeout))
		return "timeout";
	*ret = request;
	return NULL;
}
