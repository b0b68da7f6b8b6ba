/* SPDX-License-Identifier: Apache-2.0 */
/* See plain_json.h. A recursive descent whose depth is bounded. */
#include "vmm/config/plain_json.h"

#include "core/util.h"

#define MAX_DEPTH 32u

struct plain_json {
	const char *at, *end;
	unsigned int depth;
};

static json_t *plain_json_value(struct plain_json *json);

/* Whether the next character is this one, which is passed then. */
static bool plain_json_take(struct plain_json *json, char c)
{
	if (json->at == json->end || *json->at != c)
		return false;
	json->at++;
	return true;
}

static json_t *plain_json_number(struct plain_json *json)
{
	const char *first = json->at;
	bool large = false;
	int64_t value = 0;

	for (; json->at < json->end && *json->at >= '0' && *json->at <= '9'; json->at++)
		large |= __builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *json->at - '0', &value);
	if (large || json->at == json->end || (*first == '0' && json->at > first + 1))
		return NULL;
	/* A fraction and an exponent are rare, too. */
	return *json->at == ',' || *json->at == ']' || *json->at == '}' ? json_integer(value) : NULL;
}

/* The characters of a string, after its first quote: *len of them. NULL: it has rare ones. */
static const char *plain_json_characters(struct plain_json *json, size_t *len)
{
	const char *first = json->at;

	while (json->at < json->end && *json->at >= ' ' && *json->at <= '~' && *json->at != '"' && *json->at != '\\')
		json->at++;
	*len = (size_t)(json->at - first);
	return plain_json_take(json, '"') ? first : NULL;
}

static json_t *plain_json_string(struct plain_json *json)
{
	size_t len;
	const char *text = plain_json_characters(json, &len);

	return text ? json_stringn_nocheck(text, len) : NULL;
}

/* One member of an object; false: no. */
static bool plain_json_member(struct plain_json *json, json_t *object)
{
	const char *text;
	char key[64];
	size_t len;

	if (!plain_json_take(json, '"'))
		return false;
	text = plain_json_characters(json, &len);
	if (!text || len >= sizeof(key) || !plain_json_take(json, ':'))
		return false;
	memcpy(key, text, len);
	key[len] = 0;
	return !json_object_get(object, key) && json_object_set_new_nocheck(object, key, plain_json_value(json)) == 0;
}

static bool plain_json_item(struct plain_json *json, json_t *array)
{
	return json_array_append_new(array, plain_json_value(json)) == 0;
}

/* The rest of an object or array, up to the character that closes it. Takes the reference. */
static json_t *plain_json_fill(struct plain_json *json, json_t *into, char close,
			       bool (*fill)(struct plain_json *json, json_t *into))
{
	bool good = into && ++json->depth <= MAX_DEPTH;

	if (good && !plain_json_take(json, close)) {
		do
			good = fill(json, into);
		while (good && plain_json_take(json, ','));
		good = good && plain_json_take(json, close);
	}
	json->depth--;
	if (good)
		return into;
	json_decref(into);
	return NULL;
}

static json_t *plain_json_word(struct plain_json *json)
{
	static const struct {
		const char *text;
		json_t *(*make)(void);
	} words[] = {{"true", json_true}, {"false", json_false}, {"null", json_null}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t len = strlen(words[i].text);

		if ((size_t)(json->end - json->at) < len || memcmp(json->at, words[i].text, len) != 0)
			continue;
		json->at += len;
		return words[i].make();
	}
	return NULL;
}

static json_t *plain_json_value(struct plain_json *json)
{
	if (plain_json_take(json, '{'))
		return plain_json_fill(json, json_object(), '}', plain_json_member);
	if (plain_json_take(json, '['))
		return plain_json_fill(json, json_array(), ']', plain_json_item);
	if (plain_json_take(json, '"'))
		return plain_json_string(json);
	if (json->at < json->end && *json->at >= '0' && *json->at <= '9')
		return plain_json_number(json);
	return plain_json_word(json);
}

json_t *plain_json_read(const char *text, size_t len)
{
	struct plain_json json = {.at = text, .end = text + len};
	json_t *root = len && (*text == '{' || *text == '[') ? plain_json_value(&json) : NULL;

	if (root && json.at == json.end)
		return root;
	json_decref(root);
	return NULL;
}
