/* SPDX-License-Identifier: Apache-2.0 */
/* See face_paths.h. */
#include "vmm/api/firecracker/face_paths.h"

#include "core/monotonic.h"
#include "vmm/api/firecracker/face_after.h"
#include "vmm/api/firecracker/face_before.h"
#include "vmm/api/firecracker/face_extra.h"
#include "vmm/api/firecracker/face_full.h"
#include "vmm/api/firecracker/face_host.h"
#include "vmm/api/firecracker/face_plug.h"
#include "vmm/api/firecracker/face_snapshot.h"

#include <ctype.h>
#include <stdio.h>

#define BEFORE 1u
#define AFTER 2u
#define ID "*"

/* For the metrics, where Firecracker counts it. */
#define GETS "get_api_requests"
#define PUTS "put_api_requests"
#define PATCHES "patch_api_requests"

struct face_path {
	enum http_method method;
	const char *first, *second; /* of the path; second: NULL: any, ID: the id in the body, too */
	unsigned int when;
	const struct body *body;
	face_fn *fn;          /* NULL: mvmm does not have it, and the next member says what */
	const char *lacks;
	const char *group, *name; /* of the counter, or NULL */
};

static face_fn face_paths_action;

#define LACKS(what) .lacks = what
#define COUNT(group_, name_) .group = group_, .name = name_

/* The first row that fits. */
static const struct face_path paths[] = {
	{HTTP_METHOD_GET, "", NULL, BEFORE | AFTER, NULL, face_after_instance, COUNT(GETS, "instance_info")},
	{HTTP_METHOD_GET, "version", NULL, BEFORE | AFTER, NULL, face_after_version, COUNT(GETS, "vmm_version")},
	{HTTP_METHOD_GET, "vm", "config", BEFORE | AFTER, NULL, face_full_get},
	{HTTP_METHOD_GET, "machine-config", NULL, BEFORE | AFTER, NULL, face_after_machine, COUNT(GETS, "machine_cfg")},
	{HTTP_METHOD_PUT, "machine-config", NULL, BEFORE, &fc_machine_config, face_before_machine, COUNT(PUTS, "machine_cfg")},
	{HTTP_METHOD_PATCH, "machine-config", NULL, BEFORE, &fc_machine_config_update, face_before_update_machine,
	 COUNT(PATCHES, "machine_cfg")},
	{HTTP_METHOD_PUT, "boot-source", NULL, BEFORE, &fc_boot_source, face_before_boot, COUNT(PUTS, "boot_source")},
	{HTTP_METHOD_PUT, "drives", ID, BEFORE | AFTER, &fc_drive, face_plug_drive, COUNT(PUTS, "drive")},
	{HTTP_METHOD_PATCH, "drives", ID, AFTER, &fc_drive_update, face_after_drive, COUNT(PATCHES, "drive")},
	{HTTP_METHOD_PUT, "network-interfaces", ID, BEFORE | AFTER, &fc_net, face_plug_net, COUNT(PUTS, "network")},
	{HTTP_METHOD_PATCH, "network-interfaces", ID, AFTER, &fc_net_update, face_after_net, COUNT(PATCHES, "network")},
	{HTTP_METHOD_PUT, "device-passthrough", ID, BEFORE | AFTER, &fc_host_device, face_host_put,
	 COUNT(PUTS, "device_passthrough")},
	{HTTP_METHOD_DELETE, "device-passthrough", ID, AFTER, NULL, face_host_remove},
	{HTTP_METHOD_PUT, "vsock", NULL, BEFORE, &fc_vsock, face_before_vsock, COUNT(PUTS, "vsock")},
	{HTTP_METHOD_PUT, "entropy", NULL, BEFORE, &fc_entropy, face_before_entropy},
	{HTTP_METHOD_PUT, "serial", NULL, BEFORE, &fc_serial, face_before_serial, COUNT(PUTS, "serial")},
	{HTTP_METHOD_PUT, "balloon", NULL, BEFORE, &fc_balloon, face_before_balloon},
	{HTTP_METHOD_GET, "balloon", "statistics", AFTER, NULL, face_after_statistics},
	{HTTP_METHOD_GET, "balloon", "hinting", AFTER, LACKS("free page hinting")},
	{HTTP_METHOD_GET, "balloon", NULL, BEFORE | AFTER, NULL, face_after_balloon},
	{HTTP_METHOD_PATCH, "balloon", "statistics", AFTER, LACKS("another interval of statistics than that of PUT /balloon")},
	{HTTP_METHOD_PATCH, "balloon", "hinting", AFTER, LACKS("free page hinting")},
	{HTTP_METHOD_PATCH, "balloon", NULL, AFTER, &fc_balloon_update, face_after_set_balloon},
	{HTTP_METHOD_PUT, "logger", NULL, BEFORE, &fc_logger, face_before_logger, COUNT(PUTS, "logger")},
	{HTTP_METHOD_PUT, "metrics", NULL, BEFORE, &fc_metrics, face_before_metrics, COUNT(PUTS, "metrics")},
	{HTTP_METHOD_PUT, "actions", NULL, BEFORE | AFTER, &fc_action, face_paths_action, COUNT(PUTS, "actions")},
	{HTTP_METHOD_PATCH, "vm", NULL, AFTER, &fc_vm, face_after_vm},
	{HTTP_METHOD_GET, "metrics", NULL, AFTER, NULL, face_extra_metrics},
	{HTTP_METHOD_GET, "events", NULL, AFTER, NULL, face_extra_events},
	{HTTP_METHOD_PUT, "cpu-config", NULL, BEFORE, LACKS("CPU templates"), COUNT(PUTS, "cpu_cfg")},
	{HTTP_METHOD_PUT, "pmem", NULL, BEFORE, LACKS("pmem devices"), COUNT(PUTS, "pmem")},
	{HTTP_METHOD_PATCH, "pmem", NULL, AFTER, LACKS("pmem devices"), COUNT(PATCHES, "pmem")},
	{HTTP_METHOD_DELETE, "pmem", NULL, AFTER, LACKS("pmem devices")},
	{HTTP_METHOD_GET, "hotplug", "memory", AFTER, LACKS("memory hot plug"), COUNT(GETS, "hotplug_memory")},
	{HTTP_METHOD_PUT, "hotplug", "memory", BEFORE, LACKS("memory hot plug"), COUNT(PUTS, "hotplug_memory")},
	{HTTP_METHOD_PATCH, "hotplug", "memory", AFTER, LACKS("memory hot plug"), COUNT(PATCHES, "hotplug_memory")},
	{HTTP_METHOD_GET, "mmds", NULL, BEFORE | AFTER, LACKS("MMDS"), COUNT(GETS, "mmds")},
	{HTTP_METHOD_PUT, "mmds", NULL, BEFORE | AFTER, LACKS("MMDS"), COUNT(PUTS, "mmds")},
	{HTTP_METHOD_PATCH, "mmds", NULL, BEFORE | AFTER, LACKS("MMDS"), COUNT(PATCHES, "mmds")},
	{HTTP_METHOD_PUT, "snapshot", "create", AFTER, &fc_snapshot_create, face_snapshot_create},
	{HTTP_METHOD_PUT, "snapshot", "load", BEFORE, &fc_snapshot_load, face_snapshot_load},
	{HTTP_METHOD_DELETE, "drives", ID, AFTER, NULL, face_plug_remove_drive},
	{HTTP_METHOD_DELETE, "network-interfaces", ID, AFTER, NULL, face_plug_remove_net},
};
_Static_assert(ARRAY_SIZE(paths) <= FACE_MAX_COUNTERS, "a counter for each path");

/* The id is the first text of each body that has one. */
_Static_assert(offsetof(struct fc_drive, drive_id) == sizeof(body_set) && offsetof(struct fc_net, iface_id) == sizeof(body_set) &&
	       offsetof(struct fc_drive_update, drive_id) == sizeof(body_set) &&
	       offsetof(struct fc_net_update, iface_id) == sizeof(body_set) &&
	       offsetof(struct fc_host_device, id) == sizeof(body_set), "ids come first");

void face_paths_init(struct face *face)
{
	face->counter_count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (paths[i].group)
			face->counters[face->counter_count++] = (struct face_counter){.group = paths[i].group, .name = paths[i].name};
}

static struct face_counter *face_paths_counter(struct face *face, const struct face_path *path)
{
	for (size_t i = 0; i < face->counter_count && path->group; i++)
		if (face->counters[i].group == path->group && face->counters[i].name == path->name)
			return &face->counters[i];
	return NULL;
}

/* ---- when ---- */

/* A start that is on its way changes no answer: until it is done, questions come before it. */
static int face_paths_check_time(const struct face *face, enum http_method method, unsigned int when, struct err *err)
{
	if (face->phase == FACE_AFTER && !(when & AFTER))
		return err_set(err, -EINVAL, "The requested operation is not supported after starting the microVM.");
	if (face->phase != FACE_AFTER && !(when & BEFORE))
		return err_set(err, -EINVAL, "The requested operation is not supported before starting the microVM.");
	if (face->phase == FACE_STARTING && method != HTTP_METHOD_GET)
		return err_set(err, -EBUSY, "The requested operation is not supported: the microVM is starting.");
	return 0;
}

static int face_paths_action(struct face_request *request, struct err *err)
{
	static const struct {
		unsigned int when;
		face_fn *fn;
	} actions[] = {
		[FC_FLUSH_METRICS] = {AFTER, face_after_flush},
		[FC_INSTANCE_START] = {BEFORE, face_before_start},
		[FC_SEND_CTRL_ALT_DEL] = {AFTER, face_after_keys},
	};
	unsigned int action = request->body.action.action_type;

	return face_paths_check_time(request->face, HTTP_METHOD_PUT, actions[action].when, err) ?: actions[action].fn(request, err);
}

/* ---- which ---- */

struct face_words {
	char first[64], second[256];
	bool has_second;
};

/* Leading slashes do not matter, nor does one at the end. */
static void face_paths_split(const char *path, struct face_words *words)
{
	size_t len;

	while (*path == '/')
		path++;
	len = strcspn(path, "/");
	snprintf(words->first, sizeof(words->first), "%.*s", (int)len, path);
	path += len + (path[len] == '/');
	len = strcspn(path, "/");
	words->has_second = *path;
	snprintf(words->second, sizeof(words->second), "%.*s", (int)len, path);
}

static const struct face_path *face_paths_find(enum http_method method, const struct face_words *words)
{
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		const struct face_path *path = &paths[i];
		bool any = !path->second || strcmp(path->second, ID) == 0;

		if (path->method == method && strcmp(path->first, words->first) == 0 &&
		    (any || strcmp(path->second, words->second) == 0))
			return path;
	}
	return NULL;
}

/* What must be wrong with it whatever its path. */
static int face_paths_check_method(const struct http_request *http, struct err *err)
{
	if (http->method == HTTP_METHOD_GET && http->body_len)
		return err_set(err, -EINVAL, "GET request cannot have a body.");
	if (http->method == HTTP_METHOD_PUT && !http->body_len)
		return err_set(err, -EINVAL, "Empty PUT request.");
	if (http->method == HTTP_METHOD_PATCH && !http->body_len)
		return err_set(err, -EINVAL, "Empty PATCH request.");
	if (http->method == HTTP_METHOD_DELETE && http->body_len)
		return err_set(err, -EINVAL, "Empty Delete request.");
	return 0;
}

static int face_paths_check_id(const struct face_words *words, struct err *err)
{
	if (!words->has_second || !words->second[0])
		return err_set(err, -EINVAL, "The ID cannot be empty.");
	for (const char *c = words->second; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_')
			return err_set(err, -EINVAL, "API Resource IDs can only contain alphanumeric characters and underscores.");
	return 0;
}

static int face_paths_read_body(struct face_request *request, const struct face_path *path, const struct http_request *http,
				struct err *err)
{
	const char *id = (const char *)&request->body + sizeof(body_set);
	int code;

	request->table = path->body;
	body_init(path->body, &request->body);
	code = body_read_text(path->body, http->body, http->body_len, &request->body, err);
	if (code)
		err_prefix(err, code, "An error occurred when deserializing the json body of a request");
	if (code && strlen(err->text) + 2 < sizeof(err->text))
		strncat(err->text, ".", 2);
	if (code || !path->second || strcmp(path->second, ID) != 0 || strcmp(*(char *const *)id, request->id) == 0)
		return code;
	if (strcmp(path->first, "drives") == 0)
		return err_set(err, -EINVAL, "The id from the path does not match the id from the body!");
	return err_set(err, -EINVAL, "The id from the path [%.100s] does not match the id from the body [%.100s]!", request->id,
		       *(char *const *)id);
}

static int face_paths_handle(struct face_request *request, const struct http_request *http, struct err *err)
{
	struct face_words words;
	const struct face_path *path;
	int code = face_paths_check_method(http, err);

	face_paths_split(http->path, &words);
	path = face_paths_find(http->method, &words);
	if (code)
		return code;
	if (!path)
		return err_set(err, -EINVAL, "Invalid request method and/or path: %s %s.", http->method_name, words.first);
	request->counter = face_paths_counter(request->face, path);
	if (request->counter)
		request->counter->count++;
	if (path->second && strcmp(path->second, ID) == 0)
		code = face_paths_check_id(&words, err);
	memcpy(request->id, words.second, sizeof(request->id));
	if (!code && path->body)
		code = face_paths_read_body(request, path, http, err);
	code = code ?: face_paths_check_time(request->face, path->method, path->when, err);
	if (!code && !path->fn)
		return err_set(err, -EOPNOTSUPP, "The requested operation is not supported: mvmm does not have %s.", path->lacks);
	return code ?: path->fn(request, err);
}

/* ---- the log ---- */

/* As Rust shows a text in quotes. */
static void face_paths_quote(const char *text, char *to, size_t room)
{
	size_t used = 0;

	for (; *text && used + 3 < room; text++) {
		char escape = *text == '\n' ? 'n' : *text == '\t' ? 't' : *text == '\r' ? 'r' : *text;

		if (escape != *text || strchr("\"\\", *text))
			to[used++] = '\\';
		to[used++] = escape;
	}
	to[used] = 0;
}

static void face_paths_log(const struct face *face, const struct http_request *http)
{
	static const char *const names[] = {"Get", "Put", "Patch", "Delete"};
	const char *name = http->method == HTTP_METHOD_OTHER ? http->method_name : names[http->method];
	char body[600];

	face_paths_quote(http->body, body, sizeof(body));
	if (!http->body_len || strcmp(http->path, "/mmds") == 0)
		log_each(face->log, LOG_INFO, "The API server received a %s request on \"%.200s\".", name, http->path);
	else
		log_each(face->log, LOG_INFO, "The API server received a %s request on \"%.200s\" with body \"%s\".", name,
			 http->path, body);
}

void face_paths_serve(struct face *face, struct http_call *call, const struct http_request *http)
{
	struct face_request *request = calloc(1, sizeof(*request));
	struct err err = {""};
	int code;

	face_paths_log(face, http);
	if (!request) {
		http_reply(call, &(struct http_response){.status = 500});
		return;
	}
	*request = (struct face_request){.face = face, .call = call, .fd = -1, .begun_us = (int64_t)(monotonic_ns() / 1000)};
	request->passed_count = http_take_fds(call, request->passed, ARRAY_SIZE(request->passed));
	code = face_paths_handle(request, http, &err);
	if (code != FACE_LATER)
		face_finish(request, code, &err);
}
