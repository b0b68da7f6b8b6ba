/* SPDX-License-Identifier: Apache-2.0 */
/* See body.h. */
#include "vmm/api/body.h"

#include <stdio.h>
#include <strings.h>

static void *body_field(void *target, const struct body_member *member)
{
	return (char *)target + member->offset;
}

static const void *body_value(const void *target, const struct body_member *member)
{
	return (const char *)target + member->offset;
}

static body_set body_bit(const struct body *body, const struct body_member *member)
{
	return 1ull << (member - body->members);
}

/* ---- defaults ---- */

void body_init(const struct body *body, void *target)
{
	*(body_set *)target = 0;
	for (size_t i = 0; i < body->count; i++) {
		const struct body_member *member = &body->members[i];
		void *field = body_field(target, member);

		switch (member->kind) {
		case BODY_BOOL:
			*(bool *)field = member->value;
			break;
		case BODY_UINT:
			*(uint64_t *)field = member->value;
			break;
		case BODY_TEXT:
			*(char **)field = NULL;
			break;
		case BODY_WORD:
			*(unsigned int *)field = (unsigned int)member->value;
			break;
		case BODY_OBJECT:
			body_init(member->object, field);
			break;
		case BODY_LIST:
			*(struct body_list *)field = (struct body_list){0};
			break;
		}
	}
}

static void body_done_list(const struct body *body, struct body_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		body_done(body, (char *)list->items + i * body->size);
	free(list->items);
}

void body_done(const struct body *body, void *target)
{
	for (size_t i = 0; i < body->count; i++) {
		void *field = body_field(target, &body->members[i]);

		if (body->members[i].kind == BODY_TEXT)
			free(*(char **)field);
		else if (body->members[i].kind == BODY_OBJECT)
			body_done(body->members[i].object, field);
		else if (body->members[i].kind == BODY_LIST)
			body_done_list(body->members[i].object, field);
	}
	body_init(body, target);
}

/* ---- what is wrong, in serde's words ---- */

/* "invalid type: string "x", expected u8" */
static int body_wrong_type(const json_t *value, const char *expected, struct err *err)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return err_set(err, -EINVAL, "invalid type: map, expected %s", expected);
	case JSON_ARRAY:
		return err_set(err, -EINVAL, "invalid type: sequence, expected %s", expected);
	case JSON_STRING:
		return err_set(err, -EINVAL, "invalid type: string \"%.100s\", expected %s", json_string_value(value), expected);
	case JSON_INTEGER:
		return err_set(err, -EINVAL, "invalid type: integer `%lld`, expected %s", (long long)json_integer_value(value),
			       expected);
	case JSON_REAL:
		return err_set(err, -EINVAL, "invalid type: floating point `%g`, expected %s", json_real_value(value), expected);
	case JSON_NULL:
		return err_set(err, -EINVAL, "invalid type: null, expected %s", expected);
	default:
		return err_set(err, -EINVAL, "invalid type: boolean `%s`, expected %s", json_is_true(value) ? "true" : "false",
			       expected);
	}
}

/* "`a`", "`a` or `b`", "one of `a`, `b`, `c`"; name tells the i-th, NULL after the last. */
static void body_list(const char *(*name)(const void *opaque, size_t i), const void *opaque, char list[400])
{
	size_t used = 0;

	list[0] = 0;
	for (size_t i = 0; name(opaque, i) && used < 400 - 1; i++) {
		const char *before = i == 0 ? (name(opaque, 1) && name(opaque, 2) ? "one of " : "") :
					      (i == 1 && !name(opaque, 2) ? " or " : ", ");

		used += (size_t)snprintf(list + used, 400 - used, "%s`%s`", before, name(opaque, i));
	}
}

static const char *body_member_name(const void *opaque, size_t i)
{
	const struct body *body = opaque;

	return i < body->count ? body->members[i].name : NULL;
}

static const char *body_word_name(const void *opaque, size_t i)
{
	const char *const *words = opaque;

	for (size_t at = 0; at < i; at++)
		if (!words[at])
			return NULL;
	return words[i];
}

static int body_unknown(const struct body *body, const char *name, struct err *err)
{
	char list[400];

	body_list(body_member_name, body, list);
	return err_set(err, -EINVAL, "unknown field `%.60s`, expected %s", name, list);
}

/* ---- reading ---- */

static int body_read_word(const struct body_member *member, const json_t *value, unsigned int *ret, struct err *err)
{
	char list[400];

	if (!json_is_string(value))
		return body_wrong_type(value, "string or map", err);
	for (unsigned int i = 0; member->words[i]; i++) {
		const char *text = json_string_value(value);

		if ((member->any_case ? strcasecmp : strcmp)(member->words[i], text) != 0)
			continue;
		*ret = i;
		return 0;
	}
	body_list(body_word_name, member->words, list);
	return err_set(err, -EINVAL, "unknown variant `%.60s`, expected %s", json_string_value(value), list);
}

static int body_read_uint(const struct body_member *member, const json_t *value, uint64_t *ret, struct err *err)
{
	const char *type = member->max == UINT8_MAX ? "u8" : member->max == UINT16_MAX ? "u16" :
			   member->max == UINT32_MAX ? "u32" : "u64";
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value))
		return body_wrong_type(value, type, err);
	if (number < 0 || (uint64_t)number > member->max)
		return err_set(err, -EINVAL, "invalid value: integer `%lld`, expected %s", (long long)number, type);
	*ret = (uint64_t)number;
	return 0;
}

static int body_read_text_value(const json_t *value, char **ret, struct err *err)
{
	char *copy;

	if (!json_is_string(value))
		return body_wrong_type(value, "a string", err);
	copy = strdup(json_string_value(value));
	if (!copy)
		return err_sys(err, -ENOMEM, "the request");
	free(*ret);
	*ret = copy;
	return 0;
}

static int body_read_list(const struct body *body, const json_t *value, struct body_list *list, struct err *err)
{
	size_t count = json_array_size(value);

	if (!json_is_array(value))
		return body_wrong_type(value, "a sequence", err);
	if (count > BODY_MAX_ITEMS)
		return err_set(err, -EINVAL, "invalid length %zu, expected at most %u elements", count, BODY_MAX_ITEMS);
	list->items = calloc(MAX(count, 1u), body->size);
	if (!list->items)
		return err_sys(err, -ENOMEM, "the request");
	for (size_t i = 0; i < count; i++) {
		void *item = (char *)list->items + i * body->size;
		int code;

		body_init(body, item);
		list->count++;
		code = body_read(body, json_array_get(value, i), item, err);
		if (code)
			return code;
	}
	return 0;
}

static int body_read_value(const struct body_member *member, const json_t *value, void *target, struct err *err)
{
	void *field = body_field(target, member);

	switch (member->kind) {
	case BODY_BOOL:
		if (!json_is_boolean(value))
			return body_wrong_type(value, "a boolean", err);
		*(bool *)field = json_is_true(value);
		return 0;
	case BODY_UINT:
		return body_read_uint(member, value, field, err);
	case BODY_TEXT:
		return body_read_text_value(value, field, err);
	case BODY_WORD:
		return body_read_word(member, value, field, err);
	case BODY_OBJECT:
		return body_read(member->object, value, field, err);
	case BODY_LIST:
		return body_read_list(member->object, value, field, err);
	}
	return -EINVAL;
}

static int body_read_member(const struct body *body, const char *name, const json_t *value, void *target, struct err *err)
{
	for (size_t i = 0; i < body->count; i++) {
		const struct body_member *member = &body->members[i];
		int code;

		if (strcmp(member->name, name) != 0)
			continue;
		if (member->nullable && json_is_null(value))
			return 0;
		code = body_read_value(member, value, target, err);
		if (!code)
			*(body_set *)target |= body_bit(body, member);
		return code;
	}
	return body->lax ? 0 : body_unknown(body, name, err);
}

int body_read(const struct body *body, const json_t *root, void *target, struct err *err)
{
	const char *name;
	json_t *value;
	char what[64];
	int code = 0;

	snprintf(what, sizeof(what), "struct %s", body->name);
	if (!json_is_object(root))
		return body_wrong_type(root, what, err);
	json_object_foreach((json_t *)root, name, value) {
		code = body_read_member(body, name, value, target, err);
		if (code)
			return code;
	}
	for (size_t i = 0; i < body->count; i++)
		if (body->members[i].needed && !(*(body_set *)target >> i & 1))
			return err_set(err, -EINVAL, "missing field `%s`", body->members[i].name);
	return 0;
}

/* What is missing is missed at the end of the object. */
static void body_add_place(const char *text, size_t len, struct err *err)
{
	unsigned int line = 1, column = 0;
	size_t used = strlen(err->text);

	while (len && strchr(" \t\r\n", text[len - 1]))
		len--;
	for (size_t i = 0; i < len; i++) {
		column = text[i] == '\n' ? 0 : column + 1;
		line += text[i] == '\n';
	}
	snprintf(err->text + used, sizeof(err->text) - used, " at line %u column %u", line, column);
}

int body_read_text(const struct body *body, const char *text, size_t len, void *target, struct err *err)
{
	json_error_t error;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	struct err why;
	int code;

	if (!root)
		return err_set(err, -EINVAL, "%s at line %d column %d", error.text, error.line, error.column);
	code = body_read(body, root, target, &why);
	json_decref(root);
	if (code && strncmp(why.text, "missing field", 13) == 0)
		body_add_place(text, len, &why);
	if (code && err)
		*err = why;
	return code;
}

/* ---- writing ---- */

static json_t *body_write_list(const struct body *body, const struct body_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(array, body_write(body, (const char *)list->items + i * body->size));
	return array;
}

static json_t *body_write_value(const struct body_member *member, const void *target)
{
	const void *field = body_value(target, member);

	switch (member->kind) {
	case BODY_BOOL:
		return json_boolean(*(const bool *)field);
	case BODY_UINT:
		return json_integer((json_int_t)*(const uint64_t *)field);
	case BODY_TEXT:
		return *(char *const *)field ? json_string(*(char *const *)field) : json_null();
	case BODY_WORD:
		return json_string(member->words[*(const unsigned int *)field]);
	case BODY_OBJECT:
		return body_write(member->object, field);
	case BODY_LIST:
		return body_write_list(member->object, field);
	}
	return NULL;
}

json_t *body_write(const struct body *body, const void *target)
{
	json_t *root = json_object();

	for (size_t i = 0; i < body->count; i++) {
		const struct body_member *member = &body->members[i];
		bool given = *(const body_set *)target & body_bit(body, member);

		if (!given && member->hidden)
			continue;
		if (json_object_set_new(root, member->name, !given && member->nullable ? json_null() :
								 body_write_value(member, target))) {
			json_decref(root);
			return NULL;
		}
	}
	return root;
}

void body_update(const struct body *body, void *to, void *from)
{
	for (size_t i = 0; i < body->count; i++) {
		const struct body_member *member = &body->members[i];
		void *mine = body_field(to, member), *theirs = body_field(from, member);

		if (!(*(body_set *)from & body_bit(body, member)))
			continue;
		*(body_set *)to |= body_bit(body, member);
		if (member->kind == BODY_TEXT) {
			free(*(char **)mine);
			*(char **)mine = take_ptr(*(char **)theirs);
		} else if (member->kind == BODY_LIST) {
			body_done_list(member->object, mine);
			*(struct body_list *)mine = *(struct body_list *)theirs;
			*(struct body_list *)theirs = (struct body_list){0};
		} else if (member->kind == BODY_OBJECT) {
			body_update(member->object, mine, theirs);
		} else if (member->kind == BODY_UINT) {
			*(uint64_t *)mine = *(uint64_t *)theirs;
		} else if (member->kind == BODY_WORD) {
			*(unsigned int *)mine = *(unsigned int *)theirs;
		} else {
			*(bool *)mine = *(bool *)theirs;
		}
	}
}
