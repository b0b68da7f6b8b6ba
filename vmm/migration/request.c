/* SPDX-License-Identifier: Apache-2.0 */
/* See request.h. On the wire times are in seconds; the limits are those of the command line. */
#include "vmm/migration/request.h"

const char *const migration_compress_words[] = {"none", "zstd", NULL};
const char *const migration_copy_words[] = {"none", "writable", "all", NULL};
const char *const migration_timeout_words[] = {"cancel", "stop-and-copy", NULL};

#define MAX_SECONDS (7 * 86400.0)
#define MIGRATION_MAX_EXPECTED 86400000000000ull /* ns */

void migration_request_done(struct migration_request *request)
{
	free(request->to);
	free(request->tls);
	free(request->tls_peer);
	*request = (struct migration_request){0};
}

uint64_t migration_request_limit(const struct migration_request *request, uint64_t predicted)
{
	uint64_t expected = request->goal.downtime;

	if (request->downtime_limit)
		return request->downtime_limit;
	if (request->goal.on_timeout == MIGRATION_STOP_AND_COPY)
		expected = MAX(expected, MIN(predicted, MIGRATION_MAX_EXPECTED));
	return MAX(2 * expected, MIGRATION_LEAST_LIMIT);
}

static json_t *migration_request_pack(const struct migration_request *request)
{
	return json_pack("{s:s, s:f, s:f, s:s, s:i, s:I, s:I, s:i, s:s, s:s, s:s*, s:s*}", "to", request->to, "downtime",
			 (double)request->goal.downtime / 1e9, "timeout", (double)request->goal.timeout / 1e9, "on_timeout",
			 migration_timeout_words[request->goal.on_timeout], "throttle_max",
			 (int)request->goal.throttle_max, "bandwidth", (json_int_t)request->goal.bandwidth,
			 "device_rate", (json_int_t)request->device_rate, "streams", (int)request->streams,
			 "compress", migration_compress_words[request->compress], "copy_disks",
			 migration_copy_words[request->copy_disks], "tls", request->tls, "tls_peer",
			 request->tls_peer);
}

json_t *migration_request_to_json(const struct migration_request *request)
{
	json_t *object = migration_request_pack(request);

	if (object && request->downtime_limit)
		json_object_set_new(object, "downtime_limit", json_real((double)request->downtime_limit / 1e9));
	return object;
}

/* ---- one function for each kind of member; true if it is missing or valid ---- */

static bool migration_request_read_text(const json_t *value, char **ret)
{
	if (!value || json_is_null(value))
		return true;
	if (!json_is_string(value) || !json_string_length(value) ||
	    strlen(json_string_value(value)) != json_string_length(value))
		return false;
	*ret = strdup(json_string_value(value));
	return *ret;
}

static bool migration_request_read_seconds(const json_t *value, uint64_t *ret)
{
	double seconds = json_number_value(value);

	if (!value || json_is_null(value))
		return true;
	if (!json_is_number(value) || !(seconds >= 0 && seconds <= MAX_SECONDS))
		return false;
	*ret = (uint64_t)(seconds * 1e9);
	return true;
}

static bool migration_request_read_number(const json_t *value, uint64_t max, uint64_t *ret)
{
	if (!value || json_is_null(value))
		return true;
	if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
		return false;
	*ret = (uint64_t)json_integer_value(value);
	return true;
}

static bool migration_request_read_word(const json_t *value, const char *const *words, unsigned int *ret)
{
	const char *text = json_string_value(value);

	if (!value || json_is_null(value))
		return true;
	for (unsigned int i = 0; text && words[i]; i++) {
		if (strcmp(words[i], text) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static const char *migration_request_read_all(const json_t *from, struct migration_request *request)
{
	uint64_t streams = 0, throttle_max = request->goal.throttle_max;
	unsigned int compress = MIGRATION_PLAIN, copy_disks = MIGRATION_COPY_NONE, on_timeout = MIGRATION_CANCEL;

	if (!migration_request_read_text(json_object_get(from, "to"), &request->to) || !request->to)
		return "to";
	if (!migration_request_read_text(json_object_get(from, "tls"), &request->tls))
		return "tls";
	if (!migration_request_read_text(json_object_get(from, "tls_peer"), &request->tls_peer))
		return "tls_peer";
	if (!migration_request_read_seconds(json_object_get(from, "downtime"), &request->goal.downtime))
		return "downtime";
	if (!migration_request_read_seconds(json_object_get(from, "downtime_limit"), &request->downtime_limit) ||
	    (request->downtime_limit && request->downtime_limit < request->goal.downtime))
		return "downtime_limit";
	if (!migration_request_read_seconds(json_object_get(from, "timeout"), &request->goal.timeout))
		return "timeout";
	if (!migration_request_read_number(json_object_get(from, "bandwidth"), INT64_MAX, &request->goal.bandwidth))
		return "bandwidth";
	if (!migration_request_read_number(json_object_get(from, "device_rate"), INT64_MAX, &request->device_rate) || !request->device_rate)
		return "device_rate";
	if (!migration_request_read_number(json_object_get(from, "throttle_max"), MIGRATION_MAX_THROTTLE,
					   &throttle_max))
		return "throttle_max";
	if (!migration_request_read_number(json_object_get(from, "streams"), MIGRATION_MAX_STREAMS, &streams))
		return "streams";
	if (!migration_request_read_word(json_object_get(from, "compress"), migration_compress_words, &compress))
		return "compress";
	if (!migration_request_read_word(json_object_get(from, "copy_disks"), migration_copy_words, &copy_disks))
		return "copy_disks";
	if (!migration_request_read_word(json_object_get(from, "on_timeout"), migration_timeout_words, &on_timeout))
		return "on_timeout";
	request->streams = (unsigned int)streams;
	request->compress = compress;
	request->copy_disks = copy_disks;
	request->goal.on_timeout = on_timeout;
	request->goal.throttle_max = (unsigned int)throttle_max;
	return NULL;
}

const char *migration_request_from_json(const json_t *parameters, struct migration_request *ret)
{
	struct migration_request request = {
		.device_rate = MIGRATION_DEFAULT_DEVICE_RATE,
		.goal = {.downtime = MIGRATION_DEFAULT_DOWNTIME, .timeout = MIGRATION_DEFAULT_TIMEOUT,
			 .throttle_max = MIGRATION_DEFAULT_THROTTLE},
	};
	const char *bad = migration_request_read_all(parameters, &request);

	if (bad)
		migration_request_done(&request);
	else
		*ret = request;
	return bad;
}
