/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/snapshot/state_file and description: what was written is read, byte for byte what an earlier program wrote;
 * whatever is cut off, changed or out of bounds is refused with a sentence.
 */
#include "tests/unit/snapshot_rig.h"
#include "vmm/snapshot/description.h"

static struct snapshot_rig rig;
static struct err err;

static void make(uint8_t parent, struct state_buffer *out)
{
	rig_init(&rig, 0x11, parent);
	rig_fill(&rig, 0, 1);
	rig_fill(&rig, RIG_PAGES - 1, 2);
	rig_finish(&rig);
	CHECK_EQ(snapshot_state_write(&rig.state, out, &err), 0);
}

/* 0, or the error, which has a sentence. */
static int parse(const void *data, size_t len)
{
	struct snapshot_state *state;
	int code;

	err.text[0] = 0;
	code = snapshot_state_parse(data, len, &state, &err);
	CHECK(!code == !err.text[0]);
	CHECK(!strchr(err.text, '\n'));
	if (!code)
		free(state);
	return code;
}

static bool same(const struct snapshot_bytes *a, const struct snapshot_bytes *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static void reads_what_it_wrote(void)
{
	struct state_buffer file = {0};
	struct snapshot_state *state;

	for (uint8_t parent = 0; parent < 2; parent++) {
		make(parent, &file);
		CHECK_EQ(snapshot_state_parse(file.data, file.len, &state, &err), 0);
		CHECK(memcmp(state->id, rig.state.id, 16) == 0 && memcmp(state->parent, rig.state.parent, 16) == 0);
		CHECK(memcmp(state->boot_id, rig.state.boot_id, 16) == 0);
		CHECK_EQ(state->memory_bytes, RIG_MEMORY);
		CHECK_EQ(state->created_ns, rig.state.created_ns);
		CHECK(state->paused);
		CHECK(same(&state->description, &rig.state.description) && same(&state->machine, &rig.state.machine));
		CHECK(same(&state->sums, &rig.state.sums));
		CHECK_EQ(snapshot_state_is_diff(state), parent);
		CHECK(!parent || same(&state->pages, &rig.state.pages));
		CHECK(snapshot_state_has_page(state, 0) && snapshot_state_has_page(state, RIG_PAGES - 1));
		CHECK_EQ(snapshot_state_has_page(state, 9), !parent);
		CHECK_EQ(state->disk_count, 1);
		CHECK_STR(state->disks[0].id, "disk0");
		CHECK(state->disks[0].size == 65536 && state->disks[0].inode == 7 && state->disks[0].device == 8 &&
		      state->disks[0].mtime_ns == 9);
		CHECK_EQ(state->device_count, 1);
		CHECK_STR(state->devices[0].id, "gpu");
		CHECK(same(&state->devices[0].state, &rig.state.devices[0].state));
		free(state);
		state_buffer_free(&file);
		rig_done(&rig);
	}
}

static void cut_at_any_length_it_is_refused(void)
{
	struct state_buffer file = {0};

	make(1, &file);
	for (size_t len = 0; len < file.len; len++) {
		uint8_t *cut = malloc(len ?: 1); /* so that a read beyond is seen */

		memcpy(cut, file.data, len);
		CHECK_EQ(parse(cut, len), -EBADMSG);
		free(cut);
	}
	CHECK_EQ(parse(file.data, file.len), 0);
	state_buffer_free(&file);
	rig_done(&rig);
}

static void with_any_byte_changed_it_is_refused(void)
{
	struct state_buffer file = {0};

	make(1, &file);
	for (size_t at = 0; at < file.len; at++)
		for (uint8_t bit = 1; bit; bit = (uint8_t)(bit << 1)) {
			int code;

			file.data[at] ^= bit;
			code = parse(file.data, file.len);
			CHECK_EQ(code, at >= 8 && at < 16 ? -ENOTSUP : -EBADMSG);
			file.data[at] ^= bit;
		}
	state_buffer_free(&file);
	rig_done(&rig);
}

/* Makes the length and the checksum those of the bytes. */
static void seal(struct state_buffer *file)
{
	put_le64(file->data + 16, file->len);
	put_le64(file->data + 24, snapshot_sum(file->data + SNAPSHOT_HEADER_SIZE, file->len - SNAPSHOT_HEADER_SIZE));
}

/* The checksum guards against damage, not against malice. */
static void a_sealed_one_crashes_nothing(void)
{
	struct state_buffer file = {0};

	make(1, &file);
	for (size_t at = SNAPSHOT_HEADER_SIZE; at < file.len; at++)
		for (unsigned int value = 0; value < 256; value += 51) {
			uint8_t was = file.data[at];

			file.data[at] = (uint8_t)value;
			seal(&file);
			parse(file.data, file.len);
			file.data[at] = was;
		}
	for (size_t len = file.len; len-- > SNAPSHOT_HEADER_SIZE;) {
		uint8_t *cut = malloc(len);
		struct state_buffer shorter = {cut, len, len};

		memcpy(cut, file.data, len);
		seal(&shorter);
		parse(cut, len);
		free(cut);
	}
	state_buffer_free(&file);
	rig_done(&rig);
}

static void names_version_and_architecture(void)
{
	struct state_buffer file = {0};

	make(0, &file);
	put_le32(file.data + 8, 2);
	CHECK_EQ(parse(file.data, file.len), -ENOTSUP);
	CHECK(strstr(err.text, "version 2, this program knows 1"));
	put_le32(file.data + 8, 1);
	put_le32(file.data + 12, 183);
	CHECK_EQ(parse(file.data, file.len), -ENOTSUP);
	CHECK(strstr(err.text, "another architecture (ELF machine 183"));
	CHECK_EQ(parse("not a snapshot, only some text that is long enough", 50), -EBADMSG);
	CHECK(strstr(err.text, "not the state of a snapshot"));
	state_buffer_free(&file);
	rig_done(&rig);
}

/* A sealed file with a section of these bytes added. */
static int with_section(const char *name, const void *data, size_t len, const char *what)
{
	struct state_buffer file = {0};
	uint8_t name_len = (uint8_t)strlen(name), size[8];
	int code;

	make(0, &file);
	put_le64(size, len);
	CHECK(!state_buffer_add(&file, &name_len, 1) && !state_buffer_add(&file, name, name_len) &&
	      !state_buffer_add(&file, size, 8) && !state_buffer_add(&file, data, len));
	seal(&file);
	code = parse(file.data, file.len);
	if (!strstr(err.text, what)) {
		printf("# %s\n", err.text);
		code = 0;
	}
	state_buffer_free(&file);
	rig_done(&rig);
	return code;
}

static void sections_are_known_and_there_once(void)
{
	CHECK_EQ(with_section("machine", "x", 1, "machine is there twice"), -EBADMSG);
	CHECK_EQ(with_section("snapshot", "x", 1, "snapshot is there twice"), -EBADMSG);
	CHECK_EQ(with_section("disk/disk0", "x", 1, "disk0 is there twice"), -EBADMSG);
	CHECK_EQ(with_section("device/gpu", "x", 1, "gpu is there twice"), -EBADMSG);
	CHECK_EQ(with_section("disk/../a", "x", 1, "disk ../a"), -EBADMSG);
	CHECK_EQ(with_section("disk/", "x", 1, "disk "), -EBADMSG);
	CHECK_EQ(with_section("device/a b", "x", 1, "without a name"), -EBADMSG);
	CHECK_EQ(with_section("pages", "", 0, "pages is empty"), -EBADMSG);
	CHECK_EQ(with_section("", "", 0, "which this program does not know"), -ENOTSUP);
	CHECK_EQ(with_section("colour", "x", 1, "section colour, which this program does not know"), -ENOTSUP);
}

/* ---- golden files ---- */

/* Bytes in hexadecimal; what follows a '#' is a comment. */
static size_t golden_read(const char *name, uint8_t *data, size_t room)
{
	char path[512], line[256];
	size_t len = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/golden/%s", TESTS_UNIT, name);
	file = fopen(path, "r");
	CHECK(file);
	while (fgets(line, sizeof(line), file)) {
		unsigned int byte;
		int used;

		line[strcspn(line, "#")] = 0;
		for (const char *at = line; sscanf(at, " %2x%n", &byte, &used) == 1; at += used) {
			CHECK(len < room);
			data[len++] = (uint8_t)byte;
		}
	}
	fclose(file);
	return len;
}

/* What the golden files were made from. */
static void golden_make(uint8_t parent, struct state_buffer *file)
{
	static const char description[] = "{\"format\":1,\"experimental\":true,\"offer\":{}}";

	make(parent, file);
	state_buffer_free(file);
	rig.state.description = (struct snapshot_bytes){description, sizeof(description) - 1};
	CHECK_EQ(snapshot_state_write(&rig.state, file, &err), 0);
	rig_done(&rig);
}

/* Every byte that version 1 writes, and that later versions must read. */
static void writes_the_golden_files(void)
{
	static const char *const names[] = {"snapshot-state-1.txt", "snapshot-diff-1.txt"};
	static uint8_t golden[4096];

	for (uint8_t parent = 0; parent < 2; parent++) {
		struct state_buffer file = {0};
		size_t len = golden_read(names[parent], golden, sizeof(golden));

		golden_make(parent, &file);
		for (size_t at = 0; at < len && at < file.len; at++)
			if (golden[at] != file.data[at])
				printf("# %s differs at byte %zu\n", names[parent], at);
		CHECK(len == file.len && memcmp(golden, file.data, len) == 0);
		CHECK_EQ(parse(golden, len), 0);
		state_buffer_free(&file);
	}
}

#define REFUSED(change, what)                                             \
	do {                                                              \
		struct state_buffer out = {0};                            \
		rig_init(&rig, 1, 0);                                     \
		rig_finish(&rig);                                         \
		change;                                                   \
		CHECK_EQ(snapshot_state_write(&rig.state, &out, &err), -EINVAL); \
		CHECK(strstr(err.text, what));                            \
		state_buffer_free(&out);                                  \
		rig_done(&rig);                                           \
	} while (0)

/* The writer obeys the rules of the reader. */
static void sizes_must_fit(void)
{
	REFUSED(memset(rig.state.id, 0, 16), "no id");
	REFUSED(rig.state.parent[3] = 1, "a diff without pages");
	REFUSED(rig.state.pages = ((struct snapshot_bytes){rig.pages, sizeof(rig.pages)}), "a diff without a parent");
	REFUSED(rig.state.memory_bytes = 0, "0 bytes of memory");
	REFUSED(rig.state.memory_bytes += 512, "bytes of memory");
	REFUSED(rig.state.memory_bytes = MACHINE_MAX_MEMORY + 4096, "bytes of memory");
	REFUSED(rig.state.memory_bytes += MIB(2), "24 bytes of sums");
	REFUSED(rig.state.sums.len = 16, "16 bytes of sums");
	REFUSED(rig.state.machine.len = 0, "state of 0 bytes");
	REFUSED(rig.state.machine.len = SNAPSHOT_MAX_MACHINE + 1, "machine's state of");
	REFUSED(rig.state.description.len = SNAPSHOT_MAX_DESCRIPTION + 1, "a description of");
	REFUSED((rig.state.parent[0] = 1, rig.state.pages = (struct snapshot_bytes){rig.pages, 3}), "3 bytes for the 1033 pages");
	REFUSED((rig.state.parent[0] = 1, rig.pages[129] = 2,
		 rig.state.pages = (struct snapshot_bytes){rig.pages, sizeof(rig.pages)}), "behind the memory's end");
}

static void the_description_is_of_this_snapshot(void)
{
	static const struct {
		const char *text, *what;
		int code;
	} cases[] = {
		{"", "description: line 1", -EBADMSG},
		{"[]", "no format", -EBADMSG},
		{"{\"format\":1,\"format\":1}", "duplicate", -EBADMSG},
		{"{\"format\":2}", "format 2, this program knows 1", -ENOTSUP},
		{"{\"format\":1}", "of another snapshot", -EBADMSG},
		{"{\"format\":1,\"id\":\"11111111-1111-1111-1111-111111111111\",\"parent\":3}", "of another snapshot", -EBADMSG},
		{"{\"format\":1,\"id\":\"11111111-1111-1111-1111-111111111111\",\"parent\":null}", "no offer", -EBADMSG},
	};
	json_t *root;

	rig_init(&rig, 0x11, 0);
	rig_finish(&rig);
	CHECK_EQ(snapshot_description_read(&rig.state, NULL, &root, &err), 0);
	CHECK_STR(json_string_value(json_object_get(root, "created")), "2026-01-01T00:00:00Z");
	CHECK(json_is_true(json_object_get(root, "experimental")));
	CHECK(json_is_object(json_object_get(json_object_get(root, "offer"), "config")));
	json_decref(root);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		rig.state.description = (struct snapshot_bytes){cases[i].text, strlen(cases[i].text)};
		CHECK_EQ(snapshot_description_read(&rig.state, NULL, &root, &err), cases[i].code);
		CHECK(strstr(err.text, cases[i].what));
	}
	rig_done(&rig);
	CHECK_EQ(snapshot_description_write(&rig.state, "[]", &rig.description, &err), -EINVAL);
}

TEST_MAIN(TEST(reads_what_it_wrote), TEST(cut_at_any_length_it_is_refused), TEST(with_any_byte_changed_it_is_refused),
	  TEST(a_sealed_one_crashes_nothing), TEST(names_version_and_architecture), TEST(sections_are_known_and_there_once),
	  TEST(writes_the_golden_files), TEST(sizes_must_fit), TEST(the_description_is_of_this_snapshot))
