/* SPDX-License-Identifier: Apache-2.0 */
/* See value_list.h. */
#include "vmm/config/value_list.h"

#define HEADER 5u /* type, length */

/* ---- writing ---- */

struct value_list_writer {
	struct state_buffer *out;
	unsigned int depth, values;
};

static int value_list_put(struct state_buffer *out, char type, const void *data, size_t len, size_t count)
{
	uint8_t header[HEADER] = {(uint8_t)type};

	put_le32(header + 1, (uint32_t)count);
	return state_buffer_add(out, header, sizeof(header)) ?: len ? state_buffer_add(out, data, len) : 0;
}

static int value_list_put_value(struct value_list_writer *writer, const json_t *value);

static int value_list_put_object(struct value_list_writer *writer, const json_t *object)
{
	int code = json_object_size(object) > VALUE_LIST_MEMBERS ? -EBADMSG :
		   value_list_put(writer->out, 'o', NULL, 0, json_object_size(object));
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value) {
		size_t len = strlen(key);

		code = code ?: len > VALUE_LIST_KEY ? -EBADMSG : value_list_put(writer->out, 's', key, len, len);
		code = code ?: value_list_put_value(writer, value);
	}
	return code;
}

static int value_list_put_array(struct value_list_writer *writer, const json_t *array)
{
	int code = value_list_put(writer->out, 'a', NULL, 0, json_array_size(array));

	for (size_t i = 0; !code && i < json_array_size(array); i++)
		code = value_list_put_value(writer, json_array_get(array, i));
	return code;
}

static int value_list_put_number(struct value_list_writer *writer, char type, uint64_t bits)
{
	uint8_t bytes[8];

	put_le64(bytes, bits);
	return value_list_put(writer->out, type, bytes, sizeof(bytes), sizeof(bytes));
}

static int value_list_put_real(struct value_list_writer *writer, double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return value_list_put_number(writer, 'r', bits);
}

static int value_list_put_any(struct value_list_writer *writer, const json_t *value)
{
	size_t len = json_string_length(value);

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return value_list_put_object(writer, value);
	case JSON_ARRAY:
		return value_list_put_array(writer, value);
	case JSON_STRING:
		return value_list_put(writer->out, 's', json_string_value(value), len, len);
	case JSON_INTEGER:
		return value_list_put_number(writer, 'i', (uint64_t)json_integer_value(value));
	case JSON_REAL:
		return value_list_put_real(writer, json_real_value(value));
	default:
		return value_list_put(writer->out, json_is_true(value) ? 't' : json_is_false(value) ? 'f' : 'n', NULL, 0, 0);
	}
}

static int value_list_put_value(struct value_list_writer *writer, const json_t *value)
{
	int code;

	if (writer->depth == VALUE_LIST_DEPTH || ++writer->values > VALUE_LIST_VALUES)
		return -EBADMSG;
	writer->depth++;
	code = value_list_put_any(writer, value);
	writer->depth--;
	return code;
}

int value_list_write(const json_t *root, struct state_buffer *out, struct err *err)
{
	int code = value_list_put_value(&(struct value_list_writer){.out = out}, root);

	if (code == -EBADMSG)
		return err_set(err, code,
			       "it has more than %u values, %u members in one object, %u characters in a key, or a depth of %u",
			       VALUE_LIST_VALUES, VALUE_LIST_MEMBERS, VALUE_LIST_KEY, VALUE_LIST_DEPTH);
	return code ? err_sys(err, code, "its values") : 0;
}

/* ---- reading ---- */

struct value_list_reader {
	const uint8_t *at, *end;
	unsigned int depth, values;
};

struct value_list_entry {
	char type;
	uint32_t count;
	const uint8_t *data; /* of a text or a number */
};

/* False: it is cut off, or of no type. */
static bool value_list_take(struct value_list_reader *reader, struct value_list_entry *ret)
{
	bool has_data;

	if ((size_t)(reader->end - reader->at) < HEADER)
		return false;
	*ret = (struct value_list_entry){(char)reader->at[0], get_le32(reader->at + 1), reader->at + HEADER};
	reader->at += HEADER;
	has_data = ret->type == 's' || ret->type == 'i' || ret->type == 'r';
	if (has_data && ret->count > (size_t)(reader->end - reader->at))
		return false;
	reader->at += has_data ? ret->count : 0;
	return true;
}

static bool value_list_is_text(const struct value_list_entry *entry)
{
	return entry->type == 's' && !memchr(entry->data, 0, entry->count);
}

static json_t *value_list_get_value(struct value_list_reader *reader);

static bool value_list_get_member(struct value_list_reader *reader, json_t *object)
{
	struct value_list_entry key;
	char name[VALUE_LIST_KEY + 1];

	if (!value_list_take(reader, &key) || !value_list_is_text(&key) || key.count > VALUE_LIST_KEY)
		return false;
	memcpy(name, key.data, key.count);
	name[key.count] = 0;
	return !json_object_get(object, name) && json_object_set_new(object, name, value_list_get_value(reader)) == 0;
}

static bool value_list_get_item(struct value_list_reader *reader, json_t *array)
{
	return json_array_append_new(array, value_list_get_value(reader)) == 0;
}

/* Takes the reference. */
static json_t *value_list_fill(struct value_list_reader *reader, json_t *into, uint32_t count,
			       bool (*get)(struct value_list_reader *reader, json_t *into))
{
	bool good = into;

	for (uint32_t i = 0; good && i < count; i++)
		good = get(reader, into);
	if (good)
		return into;
	json_decref(into);
	return NULL;
}

static json_t *value_list_get_number(const struct value_list_entry *entry)
{
	uint64_t bits;
	double real;

	if (entry->count != sizeof(bits))
		return NULL;
	bits = get_le64(entry->data);
	memcpy(&real, &bits, sizeof(real));
	return entry->type == 'i' ? json_integer((json_int_t)bits) : json_real(real);
}

static json_t *value_list_get_any(struct value_list_reader *reader, const struct value_list_entry *entry)
{
	switch (entry->type) {
	case 'o':
		return entry->count > VALUE_LIST_MEMBERS ? NULL :
		       value_list_fill(reader, json_object(), entry->count, value_list_get_member);
	case 'a':
		return value_list_fill(reader, json_array(), entry->count, value_list_get_item);
	case 's':
		return value_list_is_text(entry) ? json_stringn((const char *)entry->data, entry->count) : NULL;
	case 'i':
	case 'r':
		return value_list_get_number(entry);
	case 't':
		return entry->count ? NULL : json_true();
	case 'f':
		return entry->count ? NULL : json_false();
	case 'n':
		return entry->count ? NULL : json_null();
	default:
		return NULL;
	}
}

static json_t *value_list_get_value(struct value_list_reader *reader)
{
	struct value_list_entry entry;
	json_t *value;

	if (reader->depth == VALUE_LIST_DEPTH || ++reader->values > VALUE_LIST_VALUES || !value_list_take(reader, &entry))
		return NULL;
	reader->depth++;
	value = value_list_get_any(reader, &entry);
	reader->depth--;
	return value;
}

int value_list_read(const void *data, size_t len, json_t **ret, struct err *err)
{
	struct value_list_reader reader = {.at = data, .end = (const uint8_t *)data + len};
	json_t *root = value_list_get_value(&reader);

	if (root && reader.at == reader.end) {
		*ret = root;
		return 0;
	}
	json_decref(root);
	return err_set(err, -EBADMSG, "a list of values is damaged, or there is no memory for it");
}
