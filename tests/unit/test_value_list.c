/* SPDX-License-Identifier: Apache-2.0 */
/* config/value_list: what is written is read, and what nobody has written is refused. */
#include "vmm/config/value_list.h"

#include "tests/unit/test.h"

static struct err err;
static struct state_buffer list;

static int write_text(const char *text)
{
	json_t *root = json_loads(text, JSON_DECODE_ANY, NULL);
	int code;

	CHECK(root);
	state_buffer_free(&list);
	code = value_list_write(root, &list, &err);
	json_decref(root);
	return code;
}

/* Of a copy of exactly that size, so that a sanitizer sees what lies behind it. */
static int read_list(const void *data, size_t len, json_t **ret)
{
	char *copy = malloc(len);
	int code;

	CHECK(copy || !len);
	if (len)
		memcpy(copy, data, len);
	code = value_list_read(copy, len, ret, &err);
	free(copy);
	return code;
}

static const char rich[] = "{\"a\":[1,-2,9223372036854775807,-9223372036854775808,1.25,true,false,null],\"\":{\"b\":\"\",\"c\":\"\\u20ac\"}}";

static void what_is_written_is_read(void)
{
	static const char *const texts[] = {rich, "[]", "{}", "\"x\"", "7", "null"};
	json_t *root, *wanted;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		CHECK_EQ(write_text(texts[i]), 0);
		CHECK_EQ(read_list(list.data, list.len, &root), 0);
		wanted = json_loads(texts[i], JSON_DECODE_ANY, NULL);
		CHECK(json_equal(root, wanted));
		json_decref(root);
		json_decref(wanted);
	}
}

static void a_list_that_is_cut_off_or_too_long_is_refused(void)
{
	json_t *root;

	CHECK_EQ(write_text(rich), 0);
	for (size_t len = 0; len < list.len; len++)
		CHECK_EQ(read_list(list.data, len, &root), -EBADMSG);
	CHECK_EQ(state_buffer_add(&list, "", 1), 0);
	CHECK_EQ(read_list(list.data, list.len, &root), -EBADMSG);
}

static void any_byte_may_be_anything(void)
{
	json_t *root;

	CHECK_EQ(write_text(rich), 0);
	for (size_t at = 0; at < list.len; at++) {
		uint8_t old = list.data[at];

		for (unsigned int value = 0; value < 256; value++) {
			list.data[at] = (uint8_t)value;
			if (read_list(list.data, list.len, &root) == 0)
				json_decref(root);
		}
		list.data[at] = old;
	}
}

static void lists_that_no_writer_writes_are_refused(void)
{
	static const struct {
		const char *bytes;
		size_t len;
	} lists[] = {
		{"x\0\0\0\0", 5},                                              /* no type */
		{"t\1\0\0\0", 5},                                              /* a word with a length */
		{"i\7\0\0\0" "1234567", 12},                                   /* a number of seven bytes */
		{"s\2\0\0\0a\0", 7},                                           /* a NUL */
		{"s\1\0\0\0\xff", 6},                                          /* not UTF-8 */
		{"a\xff\xff\xff\xff", 5},                                      /* items that are not there */
		{"o\1\0\0\0t\0\0\0\0n\0\0\0\0", 15},                           /* a key that is no text */
		{"o\2\0\0\0s\1\0\0\0an\0\0\0\0s\1\0\0\0an\0\0\0\0", 27},       /* a key twice */
		{"s\xff\xff\xff\xff" "a", 6},                                  /* longer than all */
		{"r\10\0\0\0\0\0\0\0\0\0\xf8\x7f", 13},                        /* not a number */
	};
	json_t *root;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		CHECK_EQ(read_list(lists[i].bytes, lists[i].len, &root), -EBADMSG);
}

/* An array in an array, and so on. */
static int deep(unsigned int depth)
{
	json_t *root;

	state_buffer_free(&list);
	for (unsigned int i = 1; i < depth; i++)
		CHECK_EQ(state_buffer_add(&list, "a\1\0\0\0", 5), 0);
	CHECK_EQ(state_buffer_add(&list, "a\0\0\0\0", 5), 0);
	if (read_list(list.data, list.len, &root))
		return -1;
	json_decref(root);
	return 0;
}

/* An array of so many words. */
static int wide(uint32_t count)
{
	json_t *root;
	uint8_t header[5] = {'a'};

	state_buffer_free(&list);
	put_le32(header + 1, count);
	CHECK_EQ(state_buffer_add(&list, header, sizeof(header)), 0);
	for (uint32_t i = 0; i < count; i++)
		CHECK_EQ(state_buffer_add(&list, "n\0\0\0\0", 5), 0);
	if (read_list(list.data, list.len, &root))
		return -1;
	json_decref(root);
	return 0;
}

/* An object of so many members, written and read; or the error of either. */
static int large(unsigned int members, unsigned int key)
{
	json_t *root = json_object(), *again;
	char name[300];
	int code;

	memset(name, 'k', sizeof(name));
	for (unsigned int i = 0; i < members; i++) {
		snprintf(name + key - 5, 6, "%05u", i);
		json_object_set_new(root, name, json_null());
	}
	state_buffer_free(&list);
	code = value_list_write(root, &list, &err);
	json_decref(root);
	if (!code && !(code = read_list(list.data, list.len, &again)))
		json_decref(again);
	return code;
}

static void everything_is_bounded(void)
{
	CHECK_EQ(deep(VALUE_LIST_DEPTH), 0);
	CHECK_EQ(deep(VALUE_LIST_DEPTH + 1), -1);
	CHECK_EQ(wide(VALUE_LIST_VALUES - 1), 0);
	CHECK_EQ(wide(VALUE_LIST_VALUES), -1);
	CHECK_EQ(large(VALUE_LIST_MEMBERS, 5), 0);
	CHECK_EQ(large(VALUE_LIST_MEMBERS + 1, 5), -EBADMSG);
	CHECK_STR(err.text, "it has more than 65536 values, 1024 members in one object, 255 characters in a key, or a depth of 32");
	CHECK_EQ(large(1, VALUE_LIST_KEY), 0);
	CHECK_EQ(large(1, VALUE_LIST_KEY + 1), -EBADMSG);
	CHECK_EQ(write_text("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"), -EBADMSG);
}

TEST_MAIN(TEST(what_is_written_is_read), TEST(a_list_that_is_cut_off_or_too_long_is_refused), TEST(any_byte_may_be_anything),
	  TEST(lists_that_no_writer_writes_are_refused), TEST(everything_is_bounded))
