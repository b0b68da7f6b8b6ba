/* SPDX-License-Identifier: Apache-2.0 */
/* See report.h. */
#include "vmm/migration/report.h"

static const char *const state_words[] = {
	[MIGRATION_NONE] = "none",           [MIGRATION_CONNECTING] = "connecting", [MIGRATION_MEMORY] = "memory",
	[MIGRATION_SWITCHING] = "switching", [MIGRATION_DONE] = "done",             [MIGRATION_FAILED] = "failed",
	[MIGRATION_UNRESOLVED] = "unresolved",
};

static const char *const step_words[] = {
	[MIGRATION_STEP_PAUSE] = "pause",     [MIGRATION_STEP_DEVICES] = "devices",
	[MIGRATION_STEP_COLLECT] = "collect",
	[MIGRATION_STEP_MEMORY] = "memory",   [MIGRATION_STEP_SAVE] = "save",       [MIGRATION_STEP_LOAD] = "load",
	[MIGRATION_STEP_UNLOCK] = "unlock",   [MIGRATION_STEP_START] = "start",
};

const char *migration_state_word(enum migration_state state)
{
	return state_words[state];
}

static double migration_report_seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static bool migration_report_add_progress(json_t *object, const struct migration_progress *progress)
{
	json_t *members = json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:f, s:f, s:f}", "round", (int)progress->round,
				    "sent", (json_int_t)progress->sent, "left", (json_int_t)progress->left, "device",
				    (json_int_t)progress->device, "dirty_rate", (json_int_t)progress->dirty_rate,
				    "send_rate",
				    (json_int_t)progress->send_rate, "throttle", (int)progress->throttle, "predicted",
				    migration_report_seconds(progress->predicted), "eta",
				    migration_report_seconds(progress->eta), "elapsed",
				    migration_report_seconds(progress->elapsed));
	bool good = members && json_object_update(object, members) == 0;

	json_decref(members);
	good = good && (!progress->device_assumed || json_object_set_new(object, "device_assumed", json_true()) == 0);
	return good && (!progress->reason[0] || json_object_set_new(object, "reason",
								    json_string(progress->reason)) == 0);
}

static json_t *migration_report_steps_json(const uint64_t *steps)
{
	json_t *object = json_object();

	for (size_t i = 0; object && i < MIGRATION_STEPS; i++)
		json_object_set_new(object, step_words[i], json_real(migration_report_seconds(steps[i])));
	return object;
}

static bool migration_report_add_downtime(json_t *object, const struct migration_report *report)
{
	json_t *members = json_pack("{s:f, s:f, s:o, s:o, s:f, s:f}", "downtime",
				    migration_report_seconds(report->downtime), "stall",
				    migration_report_seconds(report->stall), "steps",
				    migration_report_steps_json(report->steps), "expected",
				    migration_report_steps_json(report->expected), "target_load",
				    migration_report_seconds(report->target_load), "target_start",
				    migration_report_seconds(report->target_start));
	bool good = members && json_object_update(object, members) == 0;

	json_decref(members);
	good = good && (!report->zero_copy || json_object_set_new(object, "zero_copy", json_true()) == 0);
	return good && (!report->paused || json_object_set_new(object, "paused", json_true()) == 0);
}

json_t *migration_report_json(const struct migration_report *report)
{
	json_t *object = json_pack("{s:s}", "state", state_words[report->state]);
	bool good = object;

	if (good && report->progress.round)
		good = migration_report_add_progress(object, &report->progress);
	if (good && report->disk_sent)
		good = json_object_set_new(object, "disk_left", json_integer((json_int_t)report->disk_left)) == 0 &&
		       json_object_set_new(object, "disk_sent", json_integer((json_int_t)report->disk_sent)) == 0;
	if (good && report->state == MIGRATION_DONE)
		good = migration_report_add_downtime(object, report);
	if (good && report->text[0])
		good = json_object_set_new(object, "text", json_string(report->text)) == 0;
	if (good)
		return object;
	json_decref(object);
	return NULL;
}
