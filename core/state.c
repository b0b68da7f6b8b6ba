/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See state.h. A record, everything little-endian:
 *
 *	u8 length of name, name, u32 version, u32 length of the fields,
 *	fields: u8 length of name, name, u8 kind, u32 length, bytes
 *
 * The bytes of a STATE_KIND_TABLE field are records in a row, one for each element of the array.
 */
#include "core/state.h"

#include <pthread.h>

#define MAX_DEPTH 8u
#define MAX_FIELDS 64u

/* The rest of a record. */
struct reader {
	const uint8_t *data;
	size_t len;
};

int state_buffer_add(struct state_buffer *buffer, const void *data, size_t len)
{
	if (len > buffer->room - buffer->len) {
		size_t room = MAX(buffer->len + len, buffer->room * 2);
		uint8_t *grown = realloc(buffer->data, room);

		if (!grown)
			return -ENOMEM;
		buffer->data = grown;
		buffer->room = room;
	}
	memcpy(buffer->data + buffer->len, data, len);
	buffer->len += len;
	return 0;
}

void state_buffer_free(struct state_buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct state_buffer){0};
}

/* ---- the struct ---- */

static void state_lock(const struct state_table *table, void *object)
{
	if (table->lock)
		pthread_mutex_lock((pthread_mutex_t *)((char *)object + table->lock));
}

static void state_unlock(const struct state_table *table, void *object)
{
	if (table->lock)
		pthread_mutex_unlock((pthread_mutex_t *)((char *)object + table->lock));
}

/* How many elements or bytes of the field's array are in use. */
static size_t state_in_use(const struct state_field *field, const void *object, size_t all)
{
	uint32_t count;

	if (!field->some)
		return all;
	memcpy(&count, (const char *)object + field->some_at, sizeof(count));
	return MIN(count, all);
}

static void state_copy_range(void *to, const void *from, size_t start, size_t end)
{
	memcpy((char *)to + start, (const char *)from + start, end - start);
}

/* Copies the struct. Of bytes of which some are in use, it leaves the rest alone: it may be large, and has no meaning. */
static void state_copy(const struct state_table *table, void *to, const void *from)
{
	size_t at = 0;

	for (size_t i = 0; i < table->field_count; i++) {
		const struct state_field *field = &table->fields[i];

		if (field->kind != STATE_KIND_BYTES || !field->some || field->offset < at)
			continue;
		state_copy_range(to, from, at, field->offset + state_in_use(field, from, field->size));
		at = field->offset + field->size;
	}
	state_copy_range(to, from, at, table->size);
}

/* Lock held. */
static void state_copy_out(const struct state_table *table, const void *object, void *copy)
{
	if (!table->apart)
		state_copy(table, copy, (const char *)object + table->at);
}

static int state_copy_in(const struct state_table *table, uint32_t version, void *object, const void *copy,
			 struct err *err)
{
	int ret = table->judge ? table->judge(object, copy, version, err) : 0;

	if (ret < 0)
		return ret;
	if (!table->apart)
		state_copy(table, (char *)object + table->at, copy);
	return table->loaded ? table->loaded(object, copy, err) : 0;
}

/* ---- saving ---- */

static int state_add_name(struct state_buffer *out, const char *name)
{
	uint8_t len = (uint8_t)strlen(name);
	int ret = state_buffer_add(out, &len, 1);

	return ret < 0 ? ret : state_buffer_add(out, name, len);
}

static int state_add_u32(struct state_buffer *out, uint32_t value)
{
	uint8_t bytes[4];

	put_le32(bytes, value);
	return state_buffer_add(out, bytes, sizeof(bytes));
}

/* Writes the number of bytes after at into the four bytes before it. */
static void state_close_length(struct state_buffer *out, size_t at)
{
	put_le32(out->data + at - 4, (uint32_t)(out->len - at));
}

static int state_add_uint(struct state_buffer *out, const void *value, size_t size)
{
	uint64_t wide = size == 1 ? *(const uint8_t *)value : size == 2 ? *(const uint16_t *)value :
			size == 4 ? *(const uint32_t *)value : *(const uint64_t *)value;
	uint8_t bytes[8];

	put_le64(bytes, wide);
	return state_buffer_add(out, bytes, size);
}

static int state_save_field(const struct state_field *field, void *object, struct state_buffer *out, struct err *err)
{
	char *at = (char *)object + field->offset;
	uint8_t kind = (uint8_t)field->kind;
	size_t body, count = state_in_use(field, object, field->count);
	int ret = state_add_name(out, field->name);

	if (ret == 0)
		ret = state_buffer_add(out, &kind, 1);
	if (ret == 0)
		ret = state_add_u32(out, 0);
	body = out->len;
	if (ret < 0)
		return ret;
	switch (field->kind) {
	case STATE_KIND_UINT:
		ret = state_add_uint(out, at, field->size);
		break;
	case STATE_KIND_BOOL:
		kind = *(bool *)at;
		ret = state_buffer_add(out, &kind, 1);
		break;
	case STATE_KIND_BYTES:
		ret = state_buffer_add(out, at, state_in_use(field, object, field->size));
		break;
	case STATE_KIND_TABLE:
		for (size_t i = 0; i < count && ret == 0; i++)
			ret = state_save(field->table, at + i * field->size, out, err);
		break;
	}
	if (ret == 0)
		state_close_length(out, body);
	return ret;
}

static int state_save_record(const struct state_table *table, void *from, struct state_buffer *out, struct err *err)
{
	size_t body;
	int ret = state_add_name(out, table->name);

	if (ret == 0)
		ret = state_add_u32(out, table->version);
	if (ret == 0)
		ret = state_add_u32(out, 0);
	body = out->len;
	for (size_t i = 0; i < table->field_count && ret == 0; i++)
		ret = state_save_field(&table->fields[i], from, out, err);
	if (ret == 0)
		state_close_length(out, body);
	return ret;
}

static int state_save_struct(const struct state_table *table, void *object, struct state_buffer *out, struct err *err)
{
	_cleanup_(free_ptr) void *copy = calloc(1, table->size);
	int ret;

	if (!copy)
		return -ENOMEM;
	state_lock(table, object);
	state_copy_out(table, object, copy);
	ret = table->collect ? table->collect(object, copy, err) : 0;
	state_unlock(table, object);
	return ret < 0 ? err_prefix(err, ret, "%s", table->name) : state_save_record(table, copy, out, err);
}

int state_save(const struct state_table *table, void *object, struct state_buffer *out, struct err *err)
{
	size_t start = out->len;
	int ret = table->size ? state_save_struct(table, object, out, err) : state_save_record(table, object, out, err);

	if (ret < 0) {
		out->len = start;
		return ret == -ENOMEM ? err_sys(err, ret, "%s", table->name) : ret;
	}
	return 0;
}

/* ---- loading ---- */

static bool state_take(struct reader *in, size_t len, const uint8_t **ret)
{
	if (len > in->len)
		return false;
	*ret = in->data;
	in->data += len;
	in->len -= len;
	return true;
}

static bool state_take_u32(struct reader *in, uint32_t *ret)
{
	const uint8_t *bytes;

	if (!state_take(in, 4, &bytes))
		return false;
	*ret = get_le32(bytes);
	return true;
}

/* A name as a string: 1 to 255 printable characters. */
static bool state_take_name(struct reader *in, char name[256])
{
	const uint8_t *len, *text;

	if (!state_take(in, 1, &len) || !*len || !state_take(in, *len, &text))
		return false;
	for (uint8_t i = 0; i < *len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	memcpy(name, text, *len);
	name[*len] = 0;
	return true;
}

static bool state_take_head(struct reader *in, char name[256], uint32_t *version, struct reader *fields)
{
	uint32_t len;

	if (!state_take_name(in, name) || !state_take_u32(in, version) || !state_take_u32(in, &len) ||
	    !state_take(in, len, &fields->data))
		return false;
	fields->len = len;
	return true;
}

static bool state_take_field(struct reader *in, char name[256], uint8_t *kind, struct reader *body)
{
	const uint8_t *byte;
	uint32_t len;

	if (!state_take_name(in, name) || !state_take(in, 1, &byte) || !state_take_u32(in, &len) ||
	    !state_take(in, len, &body->data))
		return false;
	*kind = *byte;
	body->len = len;
	return true;
}

static void state_store_uint(void *to, size_t size, const uint8_t *bytes)
{
	if (size == 1)
		*(uint8_t *)to = bytes[0];
	else if (size == 2)
		*(uint16_t *)to = get_le16(bytes);
	else if (size == 4)
		*(uint32_t *)to = get_le32(bytes);
	else
		*(uint64_t *)to = get_le64(bytes);
}

static int state_load_record(const struct state_table *table, void *object, struct reader *in, unsigned int depth,
			     struct err *err);

static void state_set_in_use(const struct state_field *field, void *object, size_t count)
{
	uint32_t value = (uint32_t)count;

	if (field->some)
		memcpy((char *)object + field->some_at, &value, sizeof(value));
}

static int state_load_elements(const struct state_field *field, void *object, struct reader *body, unsigned int depth,
			       struct err *err)
{
	char *at = (char *)object + field->offset;
	size_t i;
	int ret = 0;

	for (i = 0; i < field->count && ret == 0 && (body->len || !field->some); i++)
		ret = state_load_record(field->table, at + i * field->size, body, depth + 1, err);
	if (ret == 0 && body->len)
		ret = err_set(err, -EBADMSG, "more than %zu elements", field->count);
	state_set_in_use(field, object, i);
	return ret;
}

static int state_load_field(const struct state_field *field, void *object, struct reader *body, unsigned int depth,
			    struct err *err)
{
	char *at = (char *)object + field->offset;

	if (field->kind == STATE_KIND_TABLE)
		return state_load_elements(field, object, body, depth, err);
	if (field->some && body->len > field->size)
		return err_set(err, -EBADMSG, "%zu bytes, more than %zu", body->len, field->size);
	if (!field->some && body->len != field->size)
		return err_set(err, -EBADMSG, "%zu bytes, not %zu", body->len, field->size);
	if (field->kind == STATE_KIND_BOOL && body->data[0] > 1)
		return err_set(err, -EBADMSG, "neither true nor false");
	if (field->kind == STATE_KIND_BYTES) {
		memcpy(at, body->data, body->len);
		state_set_in_use(field, object, body->len);
	}
	if (field->kind == STATE_KIND_BOOL)
		*(bool *)at = body->data[0];
	if (field->kind == STATE_KIND_UINT)
		state_store_uint(at, field->size, body->data);
	return 0;
}

/* A record of the same version has the table's order, in which next follows the field before; any order is found. */
static size_t state_find_field(const struct state_table *table, size_t next, const char *name)
{
	for (size_t n = 0; n < table->field_count; n++) {
		size_t i = (next + n) % table->field_count;

		if (strcmp(table->fields[i].name, name) == 0)
			return i;
	}
	return table->field_count;
}

/* Loads the fields of a record: none twice, and no field of its version may be missing. */
static int state_load_fields(const struct state_table *table, uint32_t version, void *object, struct reader *in,
			     unsigned int depth, struct err *err)
{
	uint64_t seen = 0;
	size_t i = 0;
	char name[256];

	while (in->len) {
		struct reader body;
		uint8_t kind;
		int ret;

		if (!state_take_field(in, name, &kind, &body))
			return err_set(err, -EBADMSG, "a field is cut off");
		i = state_find_field(table, i, name);
		if (i == table->field_count)
			return err_set(err, -EBADMSG, "unknown field %s", name);
		if (seen >> i & 1)
			return err_set(err, -EBADMSG, "%s twice", name);
		if (kind != table->fields[i].kind)
			return err_set(err, -EBADMSG, "%s is of another kind", name);
		seen |= 1ull << i;
		ret = state_load_field(&table->fields[i], object, &body, depth, err);
		if (ret < 0)
			return err_prefix(err, ret, "%s", name);
		i++;
	}
	for (i = 0; i < table->field_count; i++)
		if (!(seen >> i & 1) && table->fields[i].since <= version)
			return err_set(err, -EBADMSG, "%s is missing", table->fields[i].name);
	return 0;
}

static int state_load_struct(const struct state_table *table, uint32_t version, void *object, struct reader *fields,
			     unsigned int depth, struct err *err)
{
	_cleanup_(free_ptr) void *copy = calloc(1, table->size);
	int ret;

	if (!copy)
		return err_sys(err, -ENOMEM, "its state");
	state_lock(table, object);
	state_copy_out(table, object, copy);
	ret = state_load_fields(table, version, copy, fields, depth, err);
	if (ret == 0)
		ret = state_copy_in(table, version, object, copy, err);
	state_unlock(table, object);
	return ret;
}

static int state_load_record(const struct state_table *table, void *object, struct reader *in, unsigned int depth,
			     struct err *err)
{
	struct reader fields;
	uint32_t version;
	char name[256];
	int ret;

	if (depth > MAX_DEPTH || table->field_count > MAX_FIELDS)
		return err_set(err, -EBADMSG, "%s: too deep", table->name);
	if (!state_take_head(in, name, &version, &fields))
		return err_set(err, -EBADMSG, "%s: cut off", table->name);
	if (strcmp(name, table->name) != 0)
		return err_set(err, -EBADMSG, "%s where %s is expected", name, table->name);
	if (version < table->oldest || version > table->version)
		return err_set(err, -EBADMSG, "%s: version %u, this program knows %u to %u", name, version,
			       table->oldest, table->version);
	ret = table->size ? state_load_struct(table, version, object, &fields, depth, err)
			  : state_load_fields(table, version, object, &fields, depth, err);
	return ret < 0 ? err_prefix(err, ret, "%s", name) : 0;
}

int state_load_first(const struct state_table *table, void *object, const uint8_t **data, size_t *len, struct err *err)
{
	struct reader in = {*data, *len};
	int ret = state_load_record(table, object, &in, 0, err);

	if (ret < 0)
		return ret;
	*data = in.data;
	*len = in.len;
	return 0;
}

int state_load(const struct state_table *table, void *object, const void *data, size_t len, struct err *err)
{
	const uint8_t *at = data;
	int ret = state_load_first(table, object, &at, &len, err);

	if (ret == 0 && len)
		return err_set(err, -EBADMSG, "%s: %zu bytes too many", table->name, len);
	return ret;
}
