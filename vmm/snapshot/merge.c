/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See merge.h. One pass over memory, 2 MiB at a time: the oldest snapshot's chunk is read, the pages of each diff are put
 * over it, and the result is written and summed. Memory is not taken by reflink: it is read anyway, so that damage is
 * found instead of getting a new sum.
 */
#include "vmm/snapshot/merge.h"

#include "vmm/snapshot/description.h"
#include "vmm/snapshot/file_copy.h"
#include "vmm/snapshot/folder.h"

#include <stdio.h>

#define CHUNK_PAGES (SNAPSHOT_SUM_BYTES / SNAPSHOT_PAGE)

struct merge {
	const struct snapshot_merge *request;
	struct memory_reader readers[SNAPSHOT_MERGE_MAX];
	struct snapshot *from[SNAPSHOT_MERGE_MAX];
	struct snapshot_folder *to;
	uint8_t *result, *layer; /* a chunk each */
	uint8_t *sums, *pages;   /* of the result; pages NULL: it is no diff */
};

static const struct snapshot_state *merge_state(const struct merge *merge, size_t i)
{
	return merge->from[i]->state;
}

/* ---- the snapshots ---- */

static int merge_check_chain(const struct merge *merge, size_t i, struct err *err)
{
	const struct snapshot_state *before = merge_state(merge, i - 1), *state = merge_state(merge, i);
	char parent[SNAPSHOT_ID_TEXT], id[SNAPSHOT_ID_TEXT];

	if (!snapshot_state_is_diff(state))
		return err_set(err, -EINVAL, "%.100s: not a diff; write the full snapshot first, then its diffs",
			       merge->from[i]->path);
	if (memcmp(state->parent, before->id, sizeof(before->id)) != 0) {
		snapshot_id_text(state->parent, parent);
		snapshot_id_text(before->id, id);
		return err_set(err, -EINVAL, "%.100s: a diff of %s, but %.100s is %s; write the snapshots in the order in which "
					     "they were taken",
			       merge->from[i]->path, parent, merge->from[i - 1]->path, id);
	}
	if (state->memory_bytes != before->memory_bytes)
		return err_set(err, -EBADMSG, "%.100s: damaged: its memory has another size than its parent's",
			       merge->from[i]->path);
	return 0;
}

static int merge_open(struct merge *merge, struct err *err)
{
	int code = 0;

	for (size_t i = 0; !code && i < merge->request->count; i++) {
		code = snapshot_open_as(merge->request->folders[i], NULL, SNAPSHOT_ANY_OWNER | SNAPSHOT_ANY_KIND,
					&merge->from[i], err);
		if (code)
			break;
		merge->readers[i].snapshot = merge->from[i];
		code = snapshot_lock(merge->from[i], false, err);
		if (!code && i)
			code = merge_check_chain(merge, i, err);
	}
	return code;
}

static int merge_allocate(struct merge *merge, struct err *err)
{
	const struct snapshot_state *first = merge_state(merge, 0);

	merge->result = malloc(SNAPSHOT_SUM_BYTES);
	merge->layer = malloc(SNAPSHOT_SUM_BYTES);
	merge->sums = malloc(first->sums.len);
	if (snapshot_state_is_diff(first))
		merge->pages = calloc(1, first->pages.len);
	if (!merge->result || !merge->layer || !merge->sums || (snapshot_state_is_diff(first) && !merge->pages))
		return err_sys(err, -ENOMEM, "merge");
	for (size_t i = 0; merge->pages && i < merge->request->count; i++)
		for (size_t byte = 0; byte < first->pages.len; byte++)
			merge->pages[byte] |= ((const uint8_t *)merge_state(merge, i)->pages.data)[byte];
	return 0;
}

/* ---- memory ---- */

static bool merge_has_pages(const struct snapshot_state *state, uint64_t chunk, size_t len)
{
	/* A chunk begins with a byte of the bitmap. */
	const uint8_t *bits = (const uint8_t *)state->pages.data + chunk * CHUNK_PAGES / 8;
	size_t bytes = (len / SNAPSHOT_PAGE + 7) / 8;

	for (size_t i = 0; i < bytes; i++)
		if (bits[i])
			return true;
	return false;
}

/* Puts the pages of diff i over the result; *hole: the result is all zeros. */
static int merge_layer(struct merge *merge, size_t i, uint64_t chunk, bool *hole, struct err *err)
{
	const struct snapshot_state *state = merge_state(merge, i);
	size_t len = memory_reader_len(&merge->readers[i], chunk);
	bool empty;
	int code = memory_reader_read(&merge->readers[i], chunk, merge->layer, &empty, err);

	if (code)
		return err_prefix(err, code, "%.100s", merge->from[i]->path);
	if (!merge_has_pages(state, chunk, len))
		return 0;
	if (empty)
		memset(merge->layer, 0, len);
	if (*hole)
		memset(merge->result, 0, len);
	*hole = false;
	for (size_t page = 0; page < len / SNAPSHOT_PAGE; page++)
		if (snapshot_state_has_page(state, chunk * CHUNK_PAGES + page))
			memcpy(merge->result + page * SNAPSHOT_PAGE, merge->layer + page * SNAPSHOT_PAGE, SNAPSHOT_PAGE);
	return 0;
}

/* Whether the page must be data in the result's file. */
static bool merge_is_data(const struct merge *merge, uint64_t chunk, size_t page)
{
	const uint8_t *at = merge->result + page * SNAPSHOT_PAGE;
	uint64_t n = chunk * CHUNK_PAGES + page;

	if (merge->pages)
		return merge->pages[n / 8] >> (n % 8) & 1;
	return at[0] || memcmp(at, at + 1, SNAPSHOT_PAGE - 1) != 0;
}

static int merge_write_chunk(struct merge *merge, int fd, uint64_t chunk, size_t len)
{
	size_t pages = len / SNAPSHOT_PAGE, first = 0, end;
	int code = 0;

	while (!code && first < pages) {
		while (first < pages && !merge_is_data(merge, chunk, first))
			first++;
		for (end = first; end < pages && merge_is_data(merge, chunk, end);)
			end++;
		if (end > first)
			code = file_write(fd, merge->result + first * SNAPSHOT_PAGE, (end - first) * SNAPSHOT_PAGE,
					  chunk * SNAPSHOT_SUM_BYTES + first * SNAPSHOT_PAGE);
		first = end;
	}
	return code;
}

static int merge_chunk(struct merge *merge, int fd, uint64_t chunk, struct err *err)
{
	size_t len = memory_reader_len(&merge->readers[0], chunk);
	uint8_t *sum = merge->sums + 8 * chunk;
	bool hole;
	int code = memory_reader_read(&merge->readers[0], chunk, merge->result, &hole, err);

	if (code)
		return err_prefix(err, code, "%.100s", merge->from[0]->path);
	/* Marked pages of a diff that are zeros may be a hole's to the file system. */
	if (hole && merge->pages) {
		memset(merge->result, 0, len);
		hole = false;
	}
	for (size_t i = 1; !code && i < merge->request->count; i++)
		code = merge_layer(merge, i, chunk, &hole, err);
	if (code)
		return code;
	if (hole)
		memcpy(sum, (const uint8_t *)merge_state(merge, 0)->sums.data + 8 * chunk, 8);
	else
		put_le64(sum, snapshot_sum(merge->result, len));
	code = hole ? 0 : merge_write_chunk(merge, fd, chunk, len);
	return code ? snapshot_folder_fault(merge->to, code, "memory", err) : 0;
}

static int merge_memory(struct merge *merge, struct err *err)
{
	uint64_t size = merge_state(merge, 0)->memory_bytes, chunks = memory_reader_chunks(&merge->readers[0]);
	_cleanup_(fd_close) int fd = -1;
	int code = snapshot_folder_create(merge->to, "memory", &fd, err);

	if (!code && ftruncate(fd, (off_t)size) < 0)
		code = snapshot_folder_fault(merge->to, -errno, "memory", err);
	for (uint64_t chunk = 0; !code && chunk < chunks; chunk++)
		code = snapshot_tick(&merge->request->progress, chunk * SNAPSHOT_SUM_BYTES, size, err) ?:
		       merge_chunk(merge, fd, chunk, err);
	return code;
}

/* ---- the rest ---- */

/* The last diff's description, with the parent of the result. */
static int merge_describe(const struct merge *merge, char **ret, struct err *err)
{
	const struct snapshot_state *last = merge_state(merge, merge->request->count - 1);
	char parent[SNAPSHOT_ID_TEXT];
	json_t *root;
	int code = snapshot_description_read(last, NULL, &root, err);

	if (code)
		return err_prefix(err, code, "%.100s", merge->from[merge->request->count - 1]->path);
	snapshot_id_text(merge_state(merge, 0)->parent, parent);
	json_object_set_new(root, "parent", merge->pages ? json_string(parent) : json_null());
	*ret = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17));
	json_decref(root);
	return *ret ? 0 : err_sys(err, -ENOMEM, "merge");
}

static int merge_state_files(struct merge *merge, struct err *err)
{
	const struct snapshot_state *first = merge_state(merge, 0);
	struct snapshot_state state = *merge_state(merge, merge->request->count - 1);
	_cleanup_(free_ptr) char *description = NULL;
	struct state_buffer file = {0};
	int code = merge_describe(merge, &description, err);

	if (code)
		return code;
	memcpy(state.parent, first->parent, sizeof(state.parent));
	state.description = (struct snapshot_bytes){description, strlen(description)};
	state.sums = (struct snapshot_bytes){merge->sums, first->sums.len};
	state.pages = (struct snapshot_bytes){merge->pages, first->pages.len};
	code = snapshot_state_write(&state, &file, err) ?:
	       snapshot_folder_put(merge->to, "machine.json", description, strlen(description), err) ?:
	       snapshot_folder_put(merge->to, "state", file.data, file.len, err);
	state_buffer_free(&file);
	return code;
}

/* *found: whether from has this file, and the result has it now. */
static int merge_take_file(struct merge *merge, const struct snapshot *from, const char *name, bool *found, struct err *err)
{
	_cleanup_(fd_close) int in = -1;
	_cleanup_(fd_close) int out = -1;
	int code = snapshot_open_part(from, name, &in, err);

	*found = in >= 0;
	if (code || !*found)
		return code;
	code = snapshot_folder_create(merge->to, name, &out, err);
	if (code || !file_copy_reflink(in, out))
		return code;
	code = file_copy(in, out, &merge->request->progress, err);
	return code && code != -ECANCELED ? snapshot_folder_fault(merge->to, code, name, err) : code;
}

/* Kernel and initrd are the same for all; the newest one that is there. Disks belong to one moment. */
static int merge_take_files(struct merge *merge, struct err *err)
{
	const struct snapshot *last = merge->from[merge->request->count - 1];
	char name[8 + MACHINE_MAX_NAME];
	bool found = false;
	int code = 0;

	for (size_t i = merge->request->count; !code && !found && i-- > 0;)
		code = merge_take_file(merge, merge->from[i], "kernel", &found, err);
	found = false;
	for (size_t i = merge->request->count; !code && !found && i-- > 0;)
		code = merge_take_file(merge, merge->from[i], "initrd", &found, err);
	for (size_t i = 0; !code && i < last->state->disk_count; i++) {
		snprintf(name, sizeof(name), "disks/%s", last->state->disks[i].id);
		code = merge_take_file(merge, last, name, &found, err);
	}
	return code;
}

static int merge_all(struct merge *merge, struct err *err)
{
	int code = merge_open(merge, err) ?: merge_allocate(merge, err) ?:
		   snapshot_folder_begin(merge->request->to, merge->request->replace, &merge->to, err);

	return code ?: merge_memory(merge, err) ?: merge_take_files(merge, err) ?: merge_state_files(merge, err) ?:
	       snapshot_folder_commit(merge->to, merge->request->sync, err);
}

int snapshot_merge(const struct snapshot_merge *request, struct err *err)
{
	struct merge *merge;
	int code;

	if (request->count < 2 || request->count > SNAPSHOT_MERGE_MAX)
		return err_set(err, -EINVAL, "merge takes 2 to %u folders", SNAPSHOT_MERGE_MAX);
	merge = calloc(1, sizeof(*merge));
	if (!merge)
		return err_sys(err, -ENOMEM, "merge");
	merge->request = request;
	code = merge_all(merge, err);
	snapshot_folder_end(merge->to);
	for (size_t i = 0; i < request->count; i++)
		snapshot_close(merge->from[i]);
	free(merge->result);
	free(merge->layer);
	free(merge->sums);
	free(merge->pages);
	free(merge);
	return code;
}
