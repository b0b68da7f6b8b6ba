/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage makes of a text, and what its answer may be. Always: both readers of JSON give the same, a list that is read is,
 * to the byte, the one that would be written, and what is written is read as the same values.
 */
#include "tests/fuzz/fuzz.h"
#include "vmm/config/plain_json.h"
#include "vmm/config/value_list.h"

static void check_text(const char *text, size_t size)
{
	json_t *plain = plain_json_read(text, size), *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL), *again;
	struct state_buffer list = {0};

	MUST(!plain || json_equal(plain, root));
	json_decref(plain);
	if (root && value_list_write(root, &list, NULL) == 0) {
		MUST(value_list_read(list.data, list.len, &again, NULL) == 0);
		MUST(json_equal(again, root));
		json_decref(again);
	}
	state_buffer_free(&list);
	json_decref(root);
}

static void check_list(const uint8_t *data, size_t size)
{
	struct state_buffer list = {0};
	struct err err = {""};
	json_t *root;

	if (value_list_read(data, size, &root, &err)) {
		MUST(err.text[0]);
		return;
	}
	MUST(value_list_write(root, &list, NULL) == 0);
	MUST(list.len == size && !memcmp(list.data, data, size));
	state_buffer_free(&list);
	json_decref(root);
}

/* The first byte says which. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] & 1)
		check_text((const char *)data + 1, size - 1);
	else
		check_list(data + 1, size - 1);
	return 0;
}

/* One value as an entry of a list, at most of this depth; returns the bytes. */
static size_t draw_entry(unsigned int *seed, unsigned int depth, uint8_t *to, size_t size)
{
	static const char types[] = "oasirtfn";
	unsigned int type = draw(seed, depth ? 8 : 6) + (depth ? 0 : 2), count = type < 3 ? draw(seed, 4) : type < 5 ? 8 : 0;
	size_t len = 5;

	if (size < 64)
		return 0;
	to[0] = (uint8_t)types[type];
	memset(to + 1, 0, 4);
	to[1] = (uint8_t)count;
	for (unsigned int i = 0; type >= 2 && i < count; i++)
		to[len++] = (uint8_t)('a' + draw(seed, 26));
	for (unsigned int i = 0; type < 2 && i < count; i++) {
		if (type == 0) {
			memcpy(to + len, (uint8_t[]){'s', 1, 0, 0, 0, (uint8_t)('a' + i)}, 6);
			len += 6;
		}
		len += draw_entry(seed, depth - 1, to + len, size - len);
	}
	return len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	if (draw(&seed, 4) || max_size < 2)
		return LLVMFuzzerMutate(data, size, max_size);
	data[0] = 0;
	return 1 + draw_entry(&seed, 3, data + 1, max_size - 1);
}
