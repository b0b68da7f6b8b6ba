/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diffs and their merge. The input says which pages a base and two diffs have, what is in them, and what is damaged or
 * does not fit. Always: a merge that succeeds has exactly the pages that were laid over each other, with sums that
 * verify; one that fails says why and leaves nothing.
 */
#include "tests/fuzz/fuzz.h"
#include "vmm/snapshot/description.h"
#include "vmm/snapshot/folder.h"
#include "vmm/snapshot/merge.h"

#include <fcntl.h>
#include <sys/stat.h>

#define MEMORY MIB(1) /* the least there is */
#define PAGES (MEMORY / SNAPSHOT_PAGE)
#define COUNT 3u

static char dir[64], paths[COUNT + 1][96];
static const char *const names[] = {"a", "b", "c", "to"};
static uint8_t model[MEMORY], memory[MEMORY];

static void end(void)
{
	rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	snprintf(dir, sizeof(dir), "/dev/shm/mvmm-fuzz-%d", getpid());
	if ((mkdir(dir, 0700) < 0 && errno != EEXIST) || atexit(end))
		abort();
	for (size_t i = 0; i <= COUNT; i++)
		snprintf(paths[i], sizeof(paths[i]), "%s/%s", dir, names[i]);
	return 0;
}

/* What the input says of one snapshot. */
struct made {
	uint8_t id, parent, damage;
	uint8_t pages[PAGES / 8], sums[8];
	uint8_t content[16]; /* of page n: content[n % 16] */
};

static void take_made(struct input *in, size_t i, struct made *made)
{
	*made = (struct made){.id = (uint8_t)(1 + i), .parent = (uint8_t)i, .damage = (uint8_t)take(in, 1)};
	if (made->damage == 1)
		made->parent = (uint8_t)take(in, 1);
	for (uint64_t n = take(in, 1) % 24; n; n--) {
		uint64_t at = take(in, 1), bits = take(in, 1);

		made->pages[at % sizeof(made->pages)] |= (uint8_t)bits;
	}
	for (size_t n = 0; n < sizeof(made->content); n++)
		made->content[n] = (uint8_t)(take(in, 1) & 3);
}

static void put_memory(struct made *made, int fd)
{
	memset(memory, 0, sizeof(memory));
	MUST(ftruncate(fd, MEMORY) == 0);
	for (size_t page = 0; page < PAGES; page++) {
		uint8_t *at = memory + page * SNAPSHOT_PAGE;

		if (!(made->pages[page / 8] >> page % 8 & 1))
			continue;
		memset(at, made->content[page % 16], SNAPSHOT_PAGE);
		memcpy(model + page * SNAPSHOT_PAGE, at, SNAPSHOT_PAGE);
		MUST(pwrite(fd, at, SNAPSHOT_PAGE, (off_t)(page * SNAPSHOT_PAGE)) == SNAPSHOT_PAGE);
	}
	put_le64(made->sums, snapshot_sum(memory, sizeof(memory)));
	if (made->damage == 2)
		MUST(pwrite(fd, "damage", 6, 12345) == 6);
}

/* False: it cannot be written as a snapshot. */
static bool put_snapshot(struct made *made, const char *path)
{
	struct snapshot_state state = {.memory_bytes = MEMORY, .machine = {"state", 5}, .sums = {made->sums, 8}};
	struct snapshot_folder *folder;
	struct state_buffer file = {0};
	char *description;
	int fd, code;

	memset(state.id, made->id, 16);
	memset(state.parent, made->parent, 16);
	if (made->parent)
		state.pages = (struct snapshot_bytes){made->pages, sizeof(made->pages)};
	MUST(snapshot_folder_begin(path, false, &folder, NULL) == 0);
	MUST(snapshot_folder_create(folder, "memory", &fd, NULL) == 0);
	put_memory(made, fd);
	close(fd);
	MUST(snapshot_description_write(&state, "{}", &description, NULL) == 0);
	state.description = (struct snapshot_bytes){description, strlen(description)};
	code = snapshot_state_write(&state, &file, NULL);
	MUST(code == 0 || code == -EINVAL);
	if (!code) {
		MUST(snapshot_folder_put(folder, "machine.json", description, strlen(description), NULL) == 0);
		MUST(snapshot_folder_put(folder, "state", file.data, file.len, NULL) == 0);
		MUST(snapshot_folder_commit(folder, false, NULL) == 0);
	}
	snapshot_folder_end(folder);
	state_buffer_free(&file);
	free(description);
	return !code;
}

static void remove_snapshot(const char *path)
{
	static const char *const files[] = {"state", "memory", "machine.json"};
	char name[128];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(name, sizeof(name), "%s/%s", path, files[i]);
		unlink(name);
	}
	rmdir(path);
}

static void check_result(const struct made *made)
{
	struct snapshot *snapshot;
	struct memory_reader reader = {0};
	bool hole;

	MUST(snapshot_open_as(paths[COUNT], NULL, SNAPSHOT_ANY_KIND, &snapshot, NULL) == 0);
	MUST(snapshot->state->id[0] == made[COUNT - 1].id && snapshot->state->parent[0] == made[0].parent);
	reader.snapshot = snapshot;
	memset(memory, 0, sizeof(memory));
	MUST(memory_reader_read(&reader, 0, memory, &hole, NULL) == 0);
	MUST(memcmp(memory, model, sizeof(memory)) == 0);
	for (size_t page = 0; page < PAGES; page++) {
		unsigned int bits = made[0].pages[page / 8] | made[1].pages[page / 8] | made[2].pages[page / 8];

		MUST(!made[0].parent || snapshot_state_has_page(snapshot->state, page) == (bits >> page % 8 & 1));
	}
	snapshot_close(snapshot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *folders[COUNT] = {paths[0], paths[1], paths[2]};
	const struct snapshot_merge merge = {folders, COUNT, paths[COUNT], false, false, {0}};
	struct input in = {data, size};
	struct made made[COUNT];
	struct err err = {""};
	bool sound = true;
	int code;

	memset(model, 0, sizeof(model));
	for (size_t i = 0; i < COUNT; i++) {
		take_made(&in, i, &made[i]);
		sound = put_snapshot(&made[i], paths[i]) && sound;
	}
	code = snapshot_merge(&merge, &err);
	MUST(!code == !err.text[0]);
	if (!code)
		check_result(made);
	MUST(sound || code);
	MUST(!code == (access(paths[COUNT], F_OK) == 0));
	for (size_t i = 0; i <= COUNT; i++)
		remove_snapshot(paths[i]);
	MUST(rmdir(dir) == 0 && mkdir(dir, 0700) == 0); /* nothing is left */
	return 0;
}
