/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See request.h. One table has the members with their defaults and limits. The command line reads it, and so do both
 * directions of the control socket, where times are in seconds.
 */
#include "vmm/migration/request.h"

#include <stdio.h>

const char *const migration_compress_words[] = {"none", "zstd", NULL};
const char *const migration_copy_words[] = {"none", "writable", "all", NULL};
const char *const migration_timeout_words[] = {"cancel", "stop-and-copy", NULL};

#define MIGRATION_MAX_EXPECTED 86400000000000ull /* ns */

#define KEY(member) .offset = offsetof(struct migration_request, member)

const struct option_key migration_request_keys[MIGRATION_KEYS] = {
	[MIGRATION_KEY_TO] = {"to", OPTION_STRING, KEY(to), .help = "ADDRESS", .required = true},
	[MIGRATION_KEY_DOWNTIME] = {"downtime", OPTION_TIME, KEY(goal.downtime), .value = MIGRATION_DEFAULT_DOWNTIME,
				    .min = 1000000, .max = 3600000000000, .help = "TIME"},
	[MIGRATION_KEY_DOWNTIME_LIMIT] = {"downtime_limit", OPTION_TIME, KEY(downtime_limit), .min = 1000000,
					  .max = 86400000000000, .help = "TIME"},
	[MIGRATION_KEY_TIMEOUT] = {"timeout", OPTION_TIME, KEY(goal.timeout), .value = MIGRATION_DEFAULT_TIMEOUT,
				   .min = 1000000000, .max = 604800000000000, .help = "TIME"},
	[MIGRATION_KEY_ON_TIMEOUT] = {"on_timeout", OPTION_WORD, KEY(goal.on_timeout), .words = migration_timeout_words},
	[MIGRATION_KEY_BANDWIDTH] = {"bandwidth", OPTION_SIZE, KEY(goal.bandwidth), .min = KIB(64), .max = INT64_MAX,
				     .help = "SIZE"},
	[MIGRATION_KEY_DEVICE_RATE] = {"device_rate", OPTION_SIZE, KEY(device_rate), .value = MIGRATION_DEFAULT_DEVICE_RATE,
				       .min = KIB(64), .max = INT64_MAX, .help = "SIZE"},
	[MIGRATION_KEY_THROTTLE_MAX] = {"throttle_max", OPTION_UINT, KEY(goal.throttle_max),
					.value = MIGRATION_DEFAULT_THROTTLE, .max = MIGRATION_MAX_THROTTLE,
					.help = "PERCENT"},
	[MIGRATION_KEY_STREAMS] = {"streams", OPTION_UINT, KEY(streams), .min = 1, .max = MIGRATION_MAX_STREAMS,
				   .help = "N"},
	[MIGRATION_KEY_COMPRESS] = {"compress", OPTION_WORD, KEY(compress), .words = migration_compress_words},
	[MIGRATION_KEY_COPY_DISKS] = {"copy_disks", OPTION_WORD, KEY(copy_disks), .words = migration_copy_words},
	[MIGRATION_KEY_TLS] = {"tls", OPTION_STRING, KEY(tls), .help = "FILE"},
	[MIGRATION_KEY_TLS_PEER] = {"tls_peer", OPTION_STRING, KEY(tls_peer), .help = "NAME"},
};

static const struct option whole = {"migration", .keys = migration_request_keys, .key_count = MIGRATION_KEYS};
static const struct option_table table = {&whole, 1};

void migration_request_done(struct migration_request *request)
{
	options_done(&table, request);
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

/* ---- as an object ---- */

static const void *migration_request_field(const struct migration_request *request, const struct option_key *key)
{
	return (const char *)request + key->offset;
}

/* NULL: the member has no value. */
static json_t *migration_request_write(const struct migration_request *request, const struct option_key *key)
{
	const void *field = migration_request_field(request, key);

	switch (key->kind) {
	case OPTION_STRING:
		return *(char *const *)field ? json_string(*(char *const *)field) : NULL;
	case OPTION_WORD:
		return json_string(key->words[*(const unsigned int *)field]);
	case OPTION_UINT:
		return *(const unsigned int *)field < key->min ? NULL : json_integer(*(const unsigned int *)field);
	case OPTION_TIME:
		return *(const uint64_t *)field < key->min ? NULL : json_real((double)*(const uint64_t *)field / 1e9);
	default:
		return *(const uint64_t *)field < key->min ? NULL : json_integer((json_int_t)*(const uint64_t *)field);
	}
}

json_t *migration_request_to_json(const struct migration_request *request)
{
	json_t *object = json_object();

	for (size_t i = 0; i < MIGRATION_KEYS; i++) {
		json_t *value = migration_request_write(request, &migration_request_keys[i]);

		if (value)
			json_object_set_new(object, migration_request_keys[i].name, value);
	}
	return object;
}

/* The value as on the command line, which reads it; NULL if it has another type. */
static const char *migration_request_text(const struct option_key *key, const json_t *value, char buf[32])
{
	double seconds = json_number_value(value);

	switch (key->kind) {
	case OPTION_TIME:
		if (!json_is_number(value) || !(seconds >= 0 && seconds < 1e9))
			return NULL;
		snprintf(buf, 32, "%.0fus", seconds * 1e6);
		return buf;
	case OPTION_UINT:
	case OPTION_SIZE:
		if (!json_is_integer(value))
			return NULL;
		snprintf(buf, 32, "%lld", (long long)json_integer_value(value));
		return buf;
	default:
		return strlen(json_string_value(value) ?: "") == json_string_length(value) ? json_string_value(value) : NULL;
	}
}

/* 0 is how a number that has no default is left out. */
static bool migration_request_is_left_out(const struct option_key *key, const json_t *value)
{
	return json_is_null(value) || (!key->value && json_is_number(value) && json_number_value(value) == 0);
}

/* NULL, or the name of what is not taken. */
static const char *migration_request_read(struct migration_request *request, const char *name, const json_t *value,
					  option_set *given)
{
	const char *nearest, *text;
	const struct option_key *key = option_key_lookup(&whole, name, strlen(name), &nearest);
	char buf[32];

	if (!key)
		return name;
	if (migration_request_is_left_out(key, value))
		return NULL;
	text = migration_request_text(key, value, buf);
	return text && option_key_set(&whole, key, request, text, given, NULL) == 0 ? NULL : key->name;
}

static const char *migration_request_read_all(const json_t *from, struct migration_request *request)
{
	option_set given = 0;
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)from, name, value) {
		const char *bad = migration_request_read(request, name, value, &given);

		if (bad)
			return bad;
	}
	if (!request->to)
		return "to";
	return request->downtime_limit && request->downtime_limit < request->goal.downtime ? "downtime_limit" : NULL;
}

const char *migration_request_from_json(const json_t *parameters, struct migration_request *ret)
{
	struct migration_request request = {0};
	const char *bad;

	options_init(&table, &request);
	bad = migration_request_read_all(parameters, &request);
	if (bad)
		migration_request_done(&request);
	else
		*ret = request;
	return bad;
}
