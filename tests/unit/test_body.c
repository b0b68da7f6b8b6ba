/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/api/body: a table read, refused, written and updated. */
#include "vmm/api/body.h"
#include "tests/unit/test.h"

#include <stdio.h>

struct inner {
	body_set given;
	uint64_t size;
};

struct outer {
	body_set given;
	char *id, *path;
	bool on;
	uint64_t small;
	unsigned int word;
	struct inner inner;
};

static const char *const words[] = {"Red", "Green", "Blue", NULL};

static const struct body_member inner_members[] = {
	{"size", BODY_UINT, offsetof(struct inner, size), .max = UINT64_MAX, .needed = true},
};
static const struct body inner_body = {.name = "Inner", .members = inner_members, .count = 1, .lax = true};

static const struct body_member outer_members[] = {
	{"id", BODY_TEXT, offsetof(struct outer, id), .needed = true},
	{"path", BODY_TEXT, offsetof(struct outer, path), .nullable = true},
	{"on", BODY_BOOL, offsetof(struct outer, on), .value = true},
	{"small", BODY_UINT, offsetof(struct outer, small), .value = 7, .max = UINT8_MAX},
	{"word", BODY_WORD, offsetof(struct outer, word), .words = words, .value = 1, .nullable = true, .hidden = true, .any_case = true},
	{"inner", BODY_OBJECT, offsetof(struct outer, inner), .object = &inner_body, .nullable = true},
};
static const struct body outer_body = {.name = "Outer", .members = outer_members, .count = ARRAY_SIZE(outer_members)};

static struct outer outer;

static int load(const char *text, struct err *err)
{
	body_init(&outer_body, &outer);
	return body_read_text(&outer_body, text, strlen(text), &outer, err);
}

static void reads_members_and_defaults(void)
{
	CHECK_EQ(load("{\"id\": \"a\"}", NULL), 0);
	CHECK_STR(outer.id, "a");
	CHECK(!outer.path && outer.on && outer.small == 7 && outer.word == 1 && outer.given == 1);
	body_done(&outer_body, &outer);
	CHECK_EQ(load("{\"path\": null, \"on\": false, \"small\": 255, \"word\": \"bLUE\", \"id\": \"b\","
		      " \"inner\": {\"size\": 5, \"other\": []}}", NULL), 0);
	CHECK(!outer.path && !outer.on && outer.small == 255 && outer.word == 2 && outer.inner.size == 5 && outer.inner.given == 1);
	CHECK_EQ(outer.given, 1 | 4 | 8 | 16 | 32);
	body_done(&outer_body, &outer);
}

static void says_what_is_wrong(void)
{
	static const char *const wrong[][2] = {
		{"{}", "missing field `id` at line 1 column 2"},
		{"{\"on\":\n true }\n ", "missing field `id` at line 2 column 7"},
		{"[1]", "invalid type: sequence, expected struct Outer"},
		{"5", "invalid type: integer `5`, expected struct Outer"},
		{"{\"id\": 5}", "invalid type: integer `5`, expected a string"},
		{"{\"id\": null}", "invalid type: null, expected a string"},
		{"{\"id\": \"a\", \"on\": null}", "invalid type: null, expected a boolean"},
		{"{\"id\": \"a\", \"on\": \"yes\"}", "invalid type: string \"yes\", expected a boolean"},
		{"{\"id\": \"a\", \"small\": 256}", "invalid value: integer `256`, expected u8"},
		{"{\"id\": \"a\", \"small\": -1}", "invalid value: integer `-1`, expected u8"},
		{"{\"id\": \"a\", \"small\": 1.5}", "invalid type: floating point `1.5`, expected u8"},
		{"{\"id\": \"a\", \"small\": true}", "invalid type: boolean `true`, expected u8"},
		{"{\"id\": \"a\", \"word\": \"x\"}", "unknown variant `x`, expected one of `Red`, `Green`, `Blue`"},
		{"{\"id\": \"a\", \"inner\": {}}", "missing field `size` at line 1 column 24"},
		{"{\"id\": \"a\", \"inner\": []}", "invalid type: sequence, expected struct Inner"},
		{"{\"id\": \"a\", \"x\": 1}", "unknown field `x`, expected one of `id`, `path`, `on`, `small`, `word`, `inner`"},
	};
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		CHECK_EQ(load(wrong[i][0], &err), -EINVAL);
		CHECK_STR(err.text, wrong[i][1]);
		body_done(&outer_body, &outer);
	}
	CHECK_EQ(load("{\"id\": \"a\", \"id\": \"b\"}", &err), -EINVAL);
	CHECK_EQ(load("{\"id\": \"a\\u0000\"}", &err), -EINVAL);
	CHECK_EQ(load("{\"id\"", &err), -EINVAL);
	CHECK_EQ(load("", &err), -EINVAL);
}

static void check_written(const char *text)
{
	json_t *root = body_write(&outer_body, &outer);
	char *written = json_dumps(root, JSON_COMPACT);

	CHECK_STR(written, text);
	free(written);
	json_decref(root);
}

static void writes_what_was_read(void)
{
	CHECK_EQ(load("{\"id\": \"a\"}", NULL), 0);
	check_written("{\"id\":\"a\",\"path\":null,\"on\":true,\"small\":7,\"inner\":null}");
	body_done(&outer_body, &outer);
	CHECK_EQ(load("{\"id\": \"a\", \"word\": \"Blue\", \"path\": \"p\", \"inner\": {\"size\": 1}}", NULL), 0);
	check_written("{\"id\":\"a\",\"path\":\"p\",\"on\":true,\"small\":7,\"word\":\"Blue\",\"inner\":{\"size\":1}}");
	body_done(&outer_body, &outer);
}

static void updates_what_is_given(void)
{
	static const char text[] = "{\"id\": \"b\", \"on\": false, \"inner\": {\"size\": 2}}";
	struct outer update = {0};

	CHECK_EQ(load("{\"id\": \"a\", \"path\": \"p\", \"small\": 1, \"inner\": {\"size\": 1}}", NULL), 0);
	body_init(&outer_body, &update);
	CHECK_EQ(body_read_text(&outer_body, text, strlen(text), &update, NULL), 0);
	body_update(&outer_body, &outer, &update);
	check_written("{\"id\":\"b\",\"path\":\"p\",\"on\":false,\"small\":1,\"inner\":{\"size\":2}}");
	body_done(&outer_body, &update);
	body_done(&outer_body, &outer);
}

/* ---- lists ---- */

struct holder {
	body_set given;
	struct body_list items; /* of struct inner */
};

static const struct body item_body = {.name = "Item", .members = inner_members, .count = 1, .size = sizeof(struct inner)};
static const struct body_member holder_members[] = {
	{"items", BODY_LIST, offsetof(struct holder, items), .object = &item_body},
};
static const struct body holder_body = {.name = "Holder", .members = holder_members, .count = 1};

static int load_holder(const char *text, struct holder *holder, struct err *err)
{
	body_init(&holder_body, holder);
	return body_read_text(&holder_body, text, strlen(text), holder, err);
}

static void lists_are_read_written_and_moved(void)
{
	struct holder holder = {0}, other = {0};
	struct err err;
	json_t *root;
	char *text;

	CHECK_EQ(load_holder("{\"items\": [{\"size\": 1}, {\"size\": 2}]}", &holder, NULL), 0);
	CHECK_EQ(holder.items.count, 2);
	CHECK_EQ(((struct inner *)holder.items.items)[1].size, 2);
	CHECK_EQ(load_holder("{\"items\": [{\"size\": 3}]}", &other, NULL), 0);
	body_update(&holder_body, &holder, &other);
	root = body_write(&holder_body, &holder);
	text = json_dumps(root, JSON_COMPACT);
	CHECK_STR(text, "{\"items\":[{\"size\":3}]}");
	free(text);
	json_decref(root);
	body_done(&holder_body, &holder);
	body_done(&holder_body, &other);
	CHECK_EQ(load_holder("{\"items\": [{\"size\": 1}, {}]}", &holder, &err), -EINVAL);
	CHECK(strstr(err.text, "missing field `size`"));
	body_done(&holder_body, &holder);
	CHECK_EQ(load_holder("{\"items\": {}}", &holder, &err), -EINVAL);
	CHECK_STR(err.text, "invalid type: map, expected a sequence");
	body_done(&holder_body, &holder);
	CHECK_EQ(load_holder("{\"items\": []}", &holder, NULL), 0);
	body_done(&holder_body, &holder);
}

TEST_MAIN(TEST(lists_are_read_written_and_moved), TEST(reads_members_and_defaults), TEST(says_what_is_wrong), TEST(writes_what_was_read), TEST(updates_what_is_given))
