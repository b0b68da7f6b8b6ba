/* SPDX-License-Identifier: Apache-2.0 */
/* See config_json.h. Writes a structure as JSON by its table. */
#include "vmm/config/config_json.h"

#include <stdio.h>

static const void *config_print_field(const void *item, size_t offset)
{
	return (const char *)item + offset;
}

static json_t *config_print_text_or_null(const char *text)
{
	return text ? json_string(text) : NULL;
}

static json_t *config_print_write_names(const struct option_key *key, const void *item)
{
	char *const *names = *(char *const *const *)config_print_field(item, key->offset);
	size_t count = *(const size_t *)config_print_field(item, key->text_offset);
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		if (json_array_append_new(array, json_string(names[i]))) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *config_print_write_mac(const uint8_t *mac)
{
	char text[18];

	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	return json_string(text);
}

/* The word, or the path. */
static json_t *config_print_write_word(const struct option_key *key, const void *item)
{
	int index = *(const int *)config_print_field(item, key->offset);

	for (int i = 0; key->words[i]; i++)
		if (i == index)
			return json_string(key->words[i]);
	return config_print_text_or_null(*(char *const *)config_print_field(item, key->text_offset));
}

/* Whether the key is written: not a choice that was not made, nor a value that is not set. */
static bool config_print_is_set(const struct option_key *key, const void *item)
{
	static const uint8_t none[6];
	const void *value = config_print_field(item, key->offset);

	switch (key->kind) {
	case OPTION_CHOICE:
	case OPTION_CHOICE_TEXT:
	case OPTION_CHOICE_MAYBE:
		return *(const int *)value == (int)key->value;
	case OPTION_UINT:
		return *(const unsigned int *)value >= key->min;
	case OPTION_SIZE:
	case OPTION_TIME:
		return *(const uint64_t *)value >= key->min;
	case OPTION_RATE:
	case OPTION_RATE_COUNT:
		return ((const struct rate *)value)->amount;
	case OPTION_MAC:
		return memcmp(value, none, sizeof(none)) != 0;
	case OPTION_STRING:
		return *(char *const *)value != NULL;
	case OPTION_NAMES:
		return *(const size_t *)config_print_field(item, key->text_offset) > 0;
	case OPTION_FD:
	case OPTION_CHOICE_FD:
		return false;
	default:
		return true;
	}
}

static json_t *config_print_write_key(const struct option_key *key, const void *item)
{
	const void *value = config_print_field(item, key->offset);
	char buf[NUMBER_RATE_TEXT];

	switch (key->kind) {
	case OPTION_FLAG:
	case OPTION_BOOL:
		return json_boolean(*(const bool *)value);
	case OPTION_WORD:
	case OPTION_WORD_OR_PATH:
		return config_print_write_word(key, item);
	case OPTION_UINT:
	case OPTION_FD:
		return json_integer(*(const unsigned int *)value);
	case OPTION_CHOICE_FD:
		return NULL; /* not written */
	case OPTION_SIZE:
		return json_integer((json_int_t)*(const uint64_t *)value);
	case OPTION_TIME:
		return json_sprintf("%lluus", (unsigned long long)(*(const uint64_t *)value / 1000));
	case OPTION_RATE:
	case OPTION_RATE_COUNT:
		return json_string(number_format_rate(value, key->kind == OPTION_RATE_COUNT, buf));
	case OPTION_MAC:
		return config_print_write_mac(value);
	case OPTION_STRING:
		return config_print_text_or_null(*(char *const *)value);
	case OPTION_NAMES:
		return config_print_write_names(key, item);
	case OPTION_CHOICE:
		return json_true();
	case OPTION_CHOICE_TEXT:
		return config_print_text_or_null(*(char *const *)config_print_field(item, key->text_offset));
	case OPTION_CHOICE_MAYBE:
		return config_print_text_or_null(*(char *const *)config_print_field(item, key->text_offset)) ?:
		json_true();
	}
	return NULL;
}

static int config_print_no_text(const struct option *option, struct err *err)
{
	return err_set(err, -EINVAL, "--%s: not UTF-8, and cannot be written as JSON", option->name);
}

/* *ret is NULL for an option that has nothing to write, or lacks a required key. */
static int config_print_write_item(const struct option *option, const void *item, json_t **ret, struct err *err)
{
	json_t *object;

	*ret = NULL;
	for (size_t i = 0; i < option->key_count; i++)
		if (option->keys[i].required && !config_print_is_set(&option->keys[i], item))
			return 0;
	if (option->plain) {
		if (config_print_is_set(&option->keys[0], item) &&
		    !(*ret = config_print_write_key(&option->keys[0], item)))
			return config_print_no_text(option, err);
		return 0;
	}
	object = json_object();
	for (size_t i = 0; i < option->key_count; i++) {
		const struct option_key *key = &option->keys[i];

		if (!config_print_is_set(key, item) || json_object_get(object, key->name))
			continue;
		if (json_object_set_new(object, key->name, config_print_write_key(key, item))) {
			json_decref(object);
			return config_print_no_text(option, err);
		}
	}
	if (json_object_size(object))
		*ret = object;
	else
		json_decref(object);
	return 0;
}

static int config_print_write_list(const struct option *option, const void *target, json_t **ret, struct err *err)
{
	const char *items = *(char *const *)config_print_field(target, option->offset);
	size_t count = *(const size_t *)config_print_field(target, option->count_offset);
	json_t *array = count ? json_array() : NULL, *object;

	*ret = NULL;
	for (size_t i = 0; i < count; i++) {
		int code = config_print_write_item(option, items + i * option->item_size, &object, err);

		if (code == 0 && json_array_append_new(array, object ?: json_object()))
			code = err_sys(err, -ENOMEM, "--%s", option->name);
		if (code) {
			json_decref(array);
			return code;
		}
	}
	*ret = array;
	return 0;
}

int config_json_write(const struct option_table *table, const void *target, json_t **ret, struct err *err)
{
	json_t *root = json_object(), *value = NULL;
	int code = root ? 0 : err_sys(err, -ENOMEM, "configuration");

	for (size_t i = 0; i < table->count && !code; i++) {
		const struct option *option = &table->options[i];

		if (option->command_only)
			continue;
		code = option->item_size ? config_print_write_list(option, target, &value, err) :
		       config_print_write_item(option, config_print_field(target, option->offset), &value, err);
		if (!code && value && json_object_set_new(root, option->name, value))
			code = err_sys(err, -ENOMEM, "--%s", option->name);
	}
	if (code) {
		json_decref(root);
		return code;
	}
	*ret = root;
	return 0;
}
