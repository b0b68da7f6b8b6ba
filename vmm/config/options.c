/* SPDX-License-Identifier: Apache-2.0 */
/* See options.h. Defaults, look-ups and values; the command line is in options_line.c. */
#include "vmm/config/options.h"

#include <limits.h>
#include <stdio.h>

#include "vmm/config/nearest.h"

static void *options_field(void *item, size_t offset)
{
	return (char *)item + offset;
}

static bool options_is_choice(const struct option_key *key)
{
	return key->kind == OPTION_CHOICE || key->kind == OPTION_CHOICE_TEXT || key->kind == OPTION_CHOICE_MAYBE ||
	       key->kind == OPTION_CHOICE_FD;
}

/* The key's char *, or NULL if its kind has none. */
static char **options_text_field(const struct option_key *key, void *item)
{
	switch (key->kind) {
	case OPTION_STRING:
		return options_field(item, key->offset);
	case OPTION_WORD_OR_PATH:
	case OPTION_CHOICE_TEXT:
	case OPTION_CHOICE_MAYBE:
		return options_field(item, key->text_offset);
	default:
		return NULL;
	}
}

/* ---- defaults, freeing ---- */

static void options_key_default(const struct option_key *key, void *item)
{
	void *value = options_field(item, key->offset);

	switch (key->kind) {
	case OPTION_FLAG:
	case OPTION_BOOL:
		*(bool *)value = key->value;
		break;
	case OPTION_WORD:
	case OPTION_WORD_OR_PATH:
	case OPTION_UINT:
	case OPTION_FD:
		*(unsigned int *)value = (unsigned int)key->value;
		break;
	case OPTION_SIZE:
	case OPTION_TIME:
		*(uint64_t *)value = key->value;
		break;
	case OPTION_RATE:
	case OPTION_RATE_COUNT:
		*(struct rate *)value = (struct rate){0};
		break;
	case OPTION_MAC:
		memset(value, 0, 6);
		break;
	case OPTION_NAMES:
		*(char ***)value = NULL;
		*(size_t *)options_field(item, key->text_offset) = 0;
		break;
	case OPTION_CHOICE_FD:
		*(int *)options_field(item, key->text_offset) = -1;
		break;
	case OPTION_STRING:
	case OPTION_CHOICE: /* options_item_defaults sets default_choice */
	case OPTION_CHOICE_TEXT:
	case OPTION_CHOICE_MAYBE:
		break;
	}
	if (options_text_field(key, item))
		*options_text_field(key, item) = NULL;
}

static void options_item_defaults(const struct option *option, void *item)
{
	bool choice = false;

	for (size_t i = 0; i < option->key_count; i++) {
		options_key_default(&option->keys[i], item);
		if (options_is_choice(&option->keys[i]) && !choice)
			*(int *)options_field(item, option->keys[i].offset) = (int)option->default_choice;
		choice |= options_is_choice(&option->keys[i]);
	}
}

void option_item_done(const struct option *option, void *item)
{
	for (size_t i = 0; i < option->key_count; i++) {
		const struct option_key *key = &option->keys[i];
		char **text = options_text_field(key, item);

		if (text) {
			free(*text);
			*text = NULL;
		}
		if (key->kind == OPTION_NAMES) {
			char **names = *(char ***)options_field(item, key->offset);

			for (size_t n = 0; n < *(size_t *)options_field(item, key->text_offset); n++)
				free(names[n]);
			free(names);
		}
	}
	options_item_defaults(option, item);
}

void options_init(const struct option_table *table, void *target)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option *option = &table->options[i];

		if (option->item_size) {
			*(void **)options_field(target, option->offset) = NULL;
			*(size_t *)options_field(target, option->count_offset) = 0;
		} else {
			options_item_defaults(option, options_field(target, option->offset));
		}
	}
}

void options_done(const struct option_table *table, void *target)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option *option = &table->options[i];

		if (option->item_size) {
			char *items = *(char **)options_field(target, option->offset);
			size_t *count = options_field(target, option->count_offset);

			for (size_t n = 0; n < *count; n++)
				option_item_done(option, items + n * option->item_size);
			free(items);
			*(void **)options_field(target, option->offset) = NULL;
			*count = 0;
		} else {
			option_item_done(option, options_field(target, option->offset));
		}
	}
}

/* ---- look-ups ---- */

static bool options_same(const char *name, const char *typed, size_t len)
{
	return strlen(name) == len && memcmp(name, typed, len) == 0;
}

const struct option *option_lookup(const struct option_table *table, const char *name, size_t len, const char **nearest)
{
	struct nearest near;

	for (size_t i = 0; i < table->count; i++)
		if (options_same(table->options[i].name, name, len))
			return &table->options[i];
	near = nearest_begin(name, len);
	for (size_t i = 0; i < table->count; i++)
		nearest_offer(&near, table->options[i].name);
	*nearest = near.best;
	return NULL;
}

const struct option_key *option_key_lookup(const struct option *option, const char *name, size_t len,
					   const char **nearest)
{
	struct nearest near;

	for (size_t i = 0; i < option->key_count; i++)
		if (options_same(option->keys[i].name, name, len))
			return &option->keys[i];
	near = nearest_begin(name, len);
	for (size_t i = 0; i < option->key_count; i++)
		nearest_offer(&near, option->keys[i].name);
	*nearest = near.best;
	return NULL;
}

/* ---- values ---- */

static int options_word_index(const char *const *words, const char *text, const char *or_else, struct err *err)
{
	struct nearest near;
	char list[160] = "", hint[NEAREST_HINT];
	size_t used = 0;

	for (int i = 0; words[i]; i++)
		if (strcmp(words[i], text) == 0)
			return i;
	near = nearest_begin(text, strlen(text));
	for (int i = 0; words[i]; i++) {
		nearest_offer(&near, words[i]);
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
		used = MIN(used, sizeof(list) - 1);
	}
	if (near.best)
		return err_set(err, -EINVAL, "unknown value%s", nearest_hint("", near.best, hint));
	return err_set(err, -EINVAL, "unknown value; write one of %s%s", list, or_else);
}

static int options_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int options_parse_mac(const char *text, uint8_t *ret, struct err *err)
{
	uint8_t mac[6], any = 0;

	for (size_t i = 0; i < sizeof(mac); i++, text += 3) {
		int high = options_hex_digit(text[0]), low = high < 0 ? -1 : options_hex_digit(text[1]);

		if (low < 0 || text[2] != (i + 1 < sizeof(mac) ? ':' : '\0'))
			return err_set(err, -EINVAL, "not a MAC address; write six bytes like 52:54:00:12:34:56");
		mac[i] = (uint8_t)(high << 4 | low);
		any |= mac[i];
	}
	if (!any || mac[0] & 1)
		return err_set(err, -EINVAL, "not a unicast address; write one with an even first byte, not all zero");
	memcpy(ret, mac, sizeof(mac));
	return 0;
}

static int options_set_text(char **where, const char *text, struct err *err)
{
	char *copy;

	if (!*text)
		return err_set(err, -EINVAL, "empty; write a value or leave the option out");
	copy = strdup(text);
	if (!copy)
		return err_sys(err, -ENOMEM, "a copy of the value");
	free(*where);
	*where = copy;
	return 0;
}

static int options_add_name(const struct option_key *key, void *item, const char *text, struct err *err)
{
	char ***names = options_field(item, key->offset), **more;
	size_t *count = options_field(item, key->text_offset);
	char *name = NULL;
	int code;

	if (*count >= OPTION_MAX_ITEMS)
		return err_set(err, -EINVAL, "more than %u of them", OPTION_MAX_ITEMS);
	more = realloc(*names, (*count + 1) * sizeof(*more));
	if (!more)
		return err_sys(err, -ENOMEM, "a list of names");
	*names = more;
	code = options_set_text(&name, text, err);
	if (code)
		return code;
	more[(*count)++] = name;
	return 0;
}

/* Of a path, the number is that of the words. */
static int options_store_word(const struct option_key *key, void *item, const char *text, struct err *err)
{
	bool or_path = key->kind == OPTION_WORD_OR_PATH;
	int *value = options_field(item, key->offset), code = 0;

	if (or_path && strchr(text, '/')) {
		while (key->words[code])
			code++;
		*value = code;
		return options_set_text(options_text_field(key, item), text, err);
	}
	code = options_word_index(key->words, text, or_path ? ", or a path with a slash in it" : "", err);
	if (code >= 0)
		*value = code;
	return MIN(code, 0);
}

static int options_store_choice_fd(const struct option_key *key, void *item, const char *text, struct err *err)
{
	uint64_t number;
	int code = number_parse_uint(text, 0, INT_MAX, &number, err);

	if (code)
		return code;
	*(int *)options_field(item, key->text_offset) = (int)number;
	*(int *)options_field(item, key->offset) = (int)key->value;
	return 0;
}

static int options_store(const struct option_key *key, void *item, const char *text, struct err *err)
{
	static const char *const on_off[] = {"off", "on", NULL};
	void *value = options_field(item, key->offset);
	uint64_t number = 0;
	int code;

	switch (key->kind) {
	case OPTION_FLAG:
		*(bool *)value = true;
		return 0;
	case OPTION_BOOL:
		code = options_word_index(on_off, text, "", err);
		if (code >= 0)
			*(bool *)value = code;
		return MIN(code, 0);
	case OPTION_WORD_OR_PATH:
	case OPTION_WORD:
		return options_store_word(key, item, text, err);
	case OPTION_UINT:
	case OPTION_FD:
		code = number_parse_uint(text, key->min, MIN(key->max ?: INT_MAX, INT_MAX), &number, err);
		if (!code)
			*(unsigned int *)value = (unsigned int)number;
		return code;
	case OPTION_SIZE:
		return number_parse_size(text, key->min, key->max, value, err);
	case OPTION_TIME:
		return number_parse_time(text, key->min, key->max, value, err);
	case OPTION_RATE:
	case OPTION_RATE_COUNT:
		return number_parse_rate(text, key->kind == OPTION_RATE_COUNT, key->max, value, err);
	case OPTION_MAC:
		return options_parse_mac(text, value, err);
	case OPTION_STRING:
		return options_set_text(value, text, err);
	case OPTION_NAMES:
		return options_add_name(key, item, text, err);
	case OPTION_CHOICE_FD:
		return options_store_choice_fd(key, item, text, err);
	case OPTION_CHOICE:
	case OPTION_CHOICE_TEXT:
	case OPTION_CHOICE_MAYBE:
		*(int *)value = (int)key->value;
		return text ? options_set_text(options_text_field(key, item), text, err) : 0;
	}
	return -EINVAL;
}

/* ---- one option ---- */

void *option_begin(const struct option_table *table, const struct option *option, void *target, option_set *given,
		   struct err *err)
{
	option_set bit = 1ull << (option - table->options);
	void **array;
	size_t *count;
	char *items;

	if (!option->item_size) {
		void *item = options_field(target, option->offset);

		if (*given & bit) {
			err_set(err, -EINVAL, "given twice; leave one out");
			return NULL;
		}
		*given |= bit;
		option_item_done(option, item);
		return item;
	}
	array = options_field(target, option->offset);
	count = options_field(target, option->count_offset);
	if (*count >= OPTION_MAX_ITEMS) {
		err_set(err, -EINVAL, "given more than %u times", OPTION_MAX_ITEMS);
		return NULL;
	}
	items = reallocarray(*array, *count + 1, option->item_size);
	if (!items) {
		err_sys(err, -ENOMEM, "one more of them");
		return NULL;
	}
	*array = items;
	*given |= bit;
	items += (*count)++ * option->item_size;
	memset(items, 0, option->item_size);
	options_item_defaults(option, items);
	return items;
}

int option_key_set(const struct option *option, const struct option_key *key, void *item, const char *text,
		   option_set *keys, struct err *err)
{
	option_set bit = 1ull << (key - option->keys);
	bool takes_text = key->kind != OPTION_FLAG && key->kind != OPTION_CHOICE;

	if (*keys & bit && key->kind != OPTION_NAMES)
		return err_set(err, -EINVAL, "given twice; leave one out");
	for (size_t i = 0; options_is_choice(key) && i < option->key_count; i++)
		if (options_is_choice(&option->keys[i]) && *keys >> i & 1)
			return err_set(err, -EINVAL, "cannot be combined with %s; leave one out", option->keys[i].name);
	if (text && !takes_text)
		return err_set(err, -EINVAL, "takes no value; write %s alone", key->name);
	if (!text && takes_text && key->kind != OPTION_CHOICE_MAYBE)
		return err_set(err, -EINVAL, "needs a value; write %s=%s", key->name, key->help ?: "on");
	*keys |= bit;
	return options_store(key, item, text, err);
}

int option_end(const struct option *option, option_set keys, struct err *err)
{
	bool choice = false, chosen = false;

	for (size_t i = 0; i < option->key_count; i++) {
		const struct option_key *key = &option->keys[i];
		bool is_given = keys >> i & 1;

		if (key->required && !is_given)
			return err_set(err, -EINVAL, "%s is missing; write %s", key->name, option->value);
		choice |= options_is_choice(key);
		chosen |= options_is_choice(key) && is_given;
	}
	if (choice && !chosen)
		return err_set(err, -EINVAL, "does not say which kind; write %s", option->value);
	return 0;
}
