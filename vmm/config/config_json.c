/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See config_json.h. A value is converted to the text that the command line would have, so that the same code checks
 * both. A message gives the place of a fault as line and column if the text is not JSON, else as a path like
 * "disk[1]: readonly".
 */
#include "vmm/config/config_json.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "vmm/config/nearest.h"

static int config_json_wrong_type(const json_t *value, const char *wanted, struct err *err)
{
	static const char *const types[] = {
		[JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a text", [JSON_NULL] = "null",
		[JSON_INTEGER] = "a number", [JSON_REAL] = "a fraction", [JSON_TRUE] = "true", [JSON_FALSE] = "false",
	};

	return err_set(err, -EINVAL, "is %s; write %s", types[json_typeof(value)], wanted);
}

/* A scalar as on the command line; buf has room for 24 characters. NULL with err if the value is no scalar. */
static const char *config_json_scalar(const json_t *value, char *buf, struct err *err)
{
	switch (json_typeof(value)) {
	case JSON_STRING:
		if (strlen(json_string_value(value)) != json_string_length(value)) {
			err_set(err, -EINVAL, "has a NUL character");
			return NULL;
		}
		return json_string_value(value);
	case JSON_INTEGER:
		snprintf(buf, 24, "%lld", (long long)json_integer_value(value));
		return buf;
	case JSON_TRUE:
		return "on";
	case JSON_FALSE:
		return "off";
	default:
		config_json_wrong_type(value, "a text, a whole number, true or false", err);
		return NULL;
	}
}

static int config_json_set_key(const struct option *option, const struct option_key *key, void *item,
			       const json_t *value, option_set *keys, struct err *err)
{
	char buf[24];
	const char *text;

	/* "pty": true is the key without a value. */
	if ((key->kind == OPTION_CHOICE || key->kind == OPTION_CHOICE_MAYBE) && json_is_true(value))
		return option_key_set(option, key, item, NULL, keys, err);
	if (key->kind == OPTION_CHOICE)
		return config_json_wrong_type(value, "true", err);
	text = config_json_scalar(value, buf, err);
	return text ? option_key_set(option, key, item, text, keys, err) : -EINVAL;
}

static int config_json_set_member(const struct option *option, const char *name, void *item, const json_t *value,
				  option_set *keys, struct err *err)
{
	const char *nearest;
	const struct option_key *key = option_key_lookup(option, name, strlen(name), &nearest);
	char hint[NEAREST_HINT];
	int code = 0;

	if (!key)
		return err_set(err, -EINVAL, "%.60s: unknown key%s", name, nearest_hint("", nearest, hint));
	if (key->kind == OPTION_NAMES && json_is_array(value)) {
		for (size_t i = 0; !code && i < json_array_size(value); i++) {
			code = config_json_set_key(option, key, item, json_array_get(value, i), keys, err);
			if (code)
				err_prefix(err, code, "%s[%zu]", name, i);
		}
		return code;
	}
	code = config_json_set_key(option, key, item, value, keys, err);
	return code ? err_prefix(err, code, "%s", name) : 0;
}

/* A value that is not an object: for keys[0], or the name of a key without a value ("console": "pty"). */
static int config_json_set_alone(const struct option *option, void *item, const json_t *value, option_set *keys,
				 struct err *err)
{
	const struct option_key *key = &option->keys[0];
	const char *nearest;

	if (json_is_string(value) && !option->plain) {
		const struct option_key *alone = option_key_lookup(option, json_string_value(value),
								   json_string_length(value), &nearest);

		if (alone && (alone->kind == OPTION_CHOICE || alone->kind == OPTION_CHOICE_MAYBE))
			return option_key_set(option, alone, item, NULL, keys, err);
	}
	if (!option->plain && !option->bare)
		return config_json_wrong_type(value, "an object", err);
	if (key->kind == OPTION_CHOICE_TEXT && json_is_string(value) && !strchr(json_string_value(value), '/'))
		return err_set(err, -EINVAL, "unknown value; write %s", option->value);
	return config_json_set_key(option, key, item, value, keys, err);
}

static int config_json_set_item(const struct option_table *table, const struct option *option, void *target,
				json_t *value, option_set *given, struct err *err)
{
	void *item = option_begin(table, option, target, given, err);
	option_set keys = 0;
	const char *name;
	json_t *member;
	int code = 0;

	if (!item)
		return -EINVAL;
	if (json_is_object(value) && !option->plain) {
		json_object_foreach(value, name, member) {
			code = config_json_set_member(option, name, item, member, &keys, err);
			if (code)
				return code;
		}
	} else {
		code = config_json_set_alone(option, item, value, &keys, err);
	}
	return code ?: option_end(option, keys, err);
}

static int config_json_set_option(const struct option_table *table, const char *name, void *target, json_t *value,
				  option_set *given, struct err *err)
{
	const char *nearest;
	const struct option *option = option_lookup(table, name, strlen(name), &nearest);
	char hint[NEAREST_HINT];
	int code = 0;

	if (!option)
		return err_set(err, -EINVAL, "%.60s: unknown option%s", name, nearest_hint("", nearest, hint));
	if (option->command_only)
		return err_set(err, -EINVAL, "%s: belongs on the command line; leave it out here", name);
	if (!option->item_size || !json_is_array(value)) {
		code = config_json_set_item(table, option, target, value, given, err);
		return code ? err_prefix(err, code, "%s", name) : 0;
	}
	for (size_t i = 0; !code && i < json_array_size(value); i++) {
		code = config_json_set_item(table, option, target, json_array_get(value, i), given, err);
		if (code)
			err_prefix(err, code, "%s[%zu]", name, i);
	}
	return code;
}

int config_json_read(const struct option_table *table, void *target, const json_t *root, struct err *err)
{
	option_set given = 0;
	const char *name;
	json_t *value;

	if (!json_is_object(root))
		return config_json_wrong_type(root, "an object with the options as its members", err);
	json_object_foreach((json_t *)root, name, value) {
		int code = config_json_set_option(table, name, target, value, &given, err);

		if (code)
			return code;
	}
	return 0;
}

int config_json_parse(const struct option_table *table, void *target, const char *text, size_t len, struct err *err)
{
	json_error_t error;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	int code;

	if (!root)
		return err_set(err, -EINVAL, "line %d, column %d: %s", error.line, error.column, error.text);
	code = config_json_read(table, target, root, err);
	json_decref(root);
	return code;
}

int config_json_load(const struct option_table *table, void *target, const char *path, struct err *err)
{
	_cleanup_(free_ptr) char *text = NULL;
	_cleanup_(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	size_t len = 0;
	ssize_t n;
	int code;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, -errno, "--config %.200s: open", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "--config %.200s: not a plain file; write the name of a JSON file", path);
	if (st.st_size > (off_t)CONFIG_FILE_MAX)
		return err_set(err, -EINVAL, "--config %.200s: larger than 1M; a configuration is a few lines", path);
	text = malloc(CONFIG_FILE_MAX);
	if (!text)
		return err_sys(err, -ENOMEM, "--config %.200s", path);
	do {
		n = read(fd, text + len, CONFIG_FILE_MAX - len);
		if (n < 0)
			return err_sys(err, -errno, "--config %.200s: read", path);
		len += (size_t)n;
	} while (n > 0 && len < CONFIG_FILE_MAX);
	code = config_json_parse(table, target, text, len, err);
	return code ? err_prefix(err, code, "--config %.200s", path) : 0;
}
