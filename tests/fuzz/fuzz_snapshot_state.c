/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state file of a snapshot and the description in it. Always: what is refused comes with a sentence, and what is
 * accepted lies inside the input, has the sizes that its memory needs, and is accepted again when it is written again.
 * Inputs begin as a sound file; their length and checksum are made right, since only malice gets beyond those.
 */
#include "vmm/snapshot/description.h"
#include "tests/fuzz/fuzz.h"

#define MEMORY MIB(1)

static void seal(uint8_t *data, size_t size)
{
	if (size < SNAPSHOT_HEADER_SIZE)
		return;
	put_le64(data + 16, size);
	put_le64(data + 24, snapshot_sum(data + SNAPSHOT_HEADER_SIZE, size - SNAPSHOT_HEADER_SIZE));
}

static void check_inside(const struct snapshot_bytes *bytes, const uint8_t *data, size_t size)
{
	const uint8_t *at = bytes->data;

	MUST(!bytes->len || (at >= data && bytes->len <= size && at + bytes->len <= data + size));
}

static void check_again(const struct snapshot_state *state)
{
	struct state_buffer out = {0};
	struct snapshot_state *again;

	MUST(snapshot_state_write(state, &out, NULL) == 0);
	MUST(snapshot_state_parse(out.data, out.len, &again, NULL) == 0);
	MUST(memcmp(again->id, state->id, 16) == 0 && again->disk_count == state->disk_count &&
	     again->device_count == state->device_count && again->memory_bytes == state->memory_bytes);
	free(again);
	state_buffer_free(&out);
}

static void check_state(const struct snapshot_state *state, const uint8_t *data, size_t size)
{
	const uint64_t pages = state->memory_bytes / SNAPSHOT_PAGE;
	char id[SNAPSHOT_ID_TEXT];
	struct err err = {""};
	json_t *root;
	int code;

	MUST(state->sums.len == snapshot_sums_len(state->memory_bytes));
	MUST(!snapshot_state_is_diff(state) || state->pages.len == snapshot_pages_len(state->memory_bytes));
	MUST(state->disk_count <= ARRAY_SIZE(state->disks) && state->device_count <= ARRAY_SIZE(state->devices));
	check_inside(&state->description, data, size);
	check_inside(&state->machine, data, size);
	check_inside(&state->sums, data, size);
	check_inside(&state->pages, data, size);
	for (size_t i = 0; i < state->device_count; i++)
		check_inside(&state->devices[i].state, data, size);
	snapshot_state_has_page(state, pages - 1);
	snapshot_id_text(state->id, id);
	MUST(strlen(id) == SNAPSHOT_ID_TEXT - 1);
	code = snapshot_description_read(state, NULL, &root, &err);
	MUST(!code || ((code == -EBADMSG || code == -ENOTSUP) && err.text[0]));
	if (!code)
		json_decref(root);
	check_again(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot_state *state;
	struct err err = {""};
	int code = snapshot_state_parse(data, size, &state, &err);

	MUST(!code || ((code == -EBADMSG || code == -ENOTSUP) && err.text[0]));
	if (code)
		return 0;
	check_state(state, data, size);
	free(state);
	return 0;
}

/* A sound file: full, or a diff. */
static size_t sound(uint8_t *data, size_t max_size, bool diff)
{
	static const uint8_t sums[8], pages[MEMORY / SNAPSHOT_PAGE / 8] = {1, 2, 3};
	struct snapshot_state state = {
		.id = {1}, .parent = {diff}, .memory_bytes = MEMORY, .machine = {"state", 5}, .sums = {sums, sizeof(sums)},
		.pages = {pages, diff ? sizeof(pages) : 0}, .disks = {{"disk0", 1, 2, 3, 4}}, .disk_count = 1,
		.devices = {{"gpu", {"device", 6}}}, .device_count = 1,
	};
	struct state_buffer out = {0};
	char *description;
	size_t size;

	MUST(snapshot_description_write(&state, "{\"version\":1}", &description, NULL) == 0);
	state.description = (struct snapshot_bytes){description, strlen(description)};
	MUST(snapshot_state_write(&state, &out, NULL) == 0);
	size = MIN(out.len, max_size);
	memcpy(data, out.data, size);
	free(description);
	state_buffer_free(&out);
	return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	if (size < SNAPSHOT_HEADER_SIZE || draw(&seed, 16) == 0)
		size = sound(data, max_size, draw(&seed, 2));
	size = LLVMFuzzerMutate(data, size, max_size);
	if (draw(&seed, 8))
		seal(data, size);
	return size;
}
