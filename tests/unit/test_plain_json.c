/* SPDX-License-Identifier: Apache-2.0 */
/* config/plain_json: what it reads is what jansson reads, and what it does not read is left to that. */
#include "core/util.h"
#include "tests/unit/test.h"
#include "vmm/config/plain_json.h"

#include <stdlib.h>

static json_t *by_jansson(const char *text, size_t len)
{
	return json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

/* Reads a copy of exactly that size, so that a sanitizer sees what lies behind it. */
static json_t *read_copy(const char *text, size_t len)
{
	char *copy = malloc(MAX(len, 1));
	json_t *root;

	memcpy(copy, text, len);
	root = plain_json_read(copy, len);
	free(copy);
	return root;
}

static const char *const plain[] = {
	"{}", "[]", "[0,1,10,9223372036854775807]", "{\"a\":{\"b\":[true,false,null,\"\"]},\"c\":\"~ !\"}", "[[[[[1]]]]]",
	"{\"format\":1,\"id\":\"061ab9f2-01b9\",\"parent\":null,\"cpuid\":[[0,0,0,28,1752462657],[1,0,0]]}",
};

static void what_is_plain_is_read_as_by_jansson(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		json_t *ours = read_copy(plain[i], strlen(plain[i])), *theirs = by_jansson(plain[i], strlen(plain[i]));

		CHECK(ours && theirs && json_equal(ours, theirs));
		json_decref(ours);
		json_decref(theirs);
	}
}

static void what_is_rare_is_left_to_jansson(void)
{
	static const char *const rare[] = {
		"[-1]", "[1.0]", "[1e3]", "[9223372036854775808]", "[\"\\n\"]", "[\"\xc3\xa4\"]", "[ 1]", "{\"a\" :1}", " []",
		"[]\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(rare); i++) {
		json_t *theirs = by_jansson(rare[i], strlen(rare[i]));

		CHECK(!read_copy(rare[i], strlen(rare[i])));
		CHECK(theirs || strstr(rare[i], "9223372036854775808"));
		json_decref(theirs);
	}
}

static void what_is_invalid_is_not_read(void)
{
	static const char *const invalid[] = {
		"", "1", "\"a\"", "null", "[", "]", "[1", "[1,", "[1,]", "[,]", "[01]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}",
		"{a:1}", "{\"a\":1,\"a\":2}", "[\"a]", "[tru]", "[truer]", "[]]", "{}[]", "[\"\x01\"]", "[1x]", "{\"a\":1]", "[1}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(invalid); i++)
		CHECK(!read_copy(invalid[i], strlen(invalid[i])));
}

/* At every length, and with every byte replaced by some others: never something that jansson does not read. */
static void it_reads_nothing_that_jansson_refuses(void)
{
	static const char others[] = "0,:]}[{\"\\ta\x80 ";

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		size_t len = strlen(plain[i]);
		char *text = strdup(plain[i]);

		for (size_t cut = 0; cut < len; cut++)
			CHECK(!read_copy(text, cut));
		for (size_t at = 0; at < len; at++) {
			for (size_t j = 0; j < sizeof(others); j++) {
				json_t *ours, *theirs;

				text[at] = others[j];
				ours = read_copy(text, len);
				theirs = ours ? by_jansson(text, len) : NULL;
				CHECK(!ours || (theirs && json_equal(ours, theirs)));
				json_decref(ours);
				json_decref(theirs);
			}
			text[at] = plain[i][at];
		}
		free(text);
	}
}

static void depth_is_bounded(void)
{
	char deep[100000];

	memset(deep, '[', sizeof(deep));
	CHECK(!plain_json_read(deep, sizeof(deep)));
	memset(deep, '[', 32);
	memset(deep + 32, ']', 32);
	json_decref(plain_json_read(deep, 64));
	CHECK(!plain_json_read(deep, 63));
}

TEST_MAIN(TEST(what_is_plain_is_read_as_by_jansson), TEST(what_is_rare_is_left_to_jansson), TEST(what_is_invalid_is_not_read),
	  TEST(it_reads_nothing_that_jansson_refuses), TEST(depth_is_bounded))
