/* SPDX-License-Identifier: Apache-2.0 */
/* See state_file.h. A section that this program does not know is refused: the machine might not be the same without. */
#include "vmm/snapshot/state_file.h"

#include <inttypes.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const char state_file_magic[8] = {'M', 'V', 'M', 'M', 'S', 'N', 'A', 'P'};

/* Where the header's fields are. */
enum { AT_VERSION = 8, AT_ARCHITECTURE = 12, AT_LENGTH = 16, AT_SUM = 24 };

static const struct state_field snapshot_fields[] = {
	STATE_BYTES(struct snapshot_state, id, 1),
	STATE_BYTES(struct snapshot_state, parent, 1),
	STATE_BYTES(struct snapshot_state, boot_id, 1),
	STATE_UINT(struct snapshot_state, memory_bytes, 1),
	STATE_UINT(struct snapshot_state, created_ns, 1),
	STATE_BOOL(struct snapshot_state, paused, 1),
};
static const struct state_table snapshot_table = {
	.name = "snapshot", .version = 1, .oldest = 1, STATE_FIELDS(snapshot_fields),
};

static const struct state_field disk_fields[] = {
	STATE_UINT(struct snapshot_disk, size, 1),
	STATE_UINT(struct snapshot_disk, inode, 1),
	STATE_UINT(struct snapshot_disk, device, 1),
	STATE_UINT(struct snapshot_disk, mtime_ns, 1),
};
static const struct state_table disk_table = {.name = "disk", .version = 1, .oldest = 1, STATE_FIELDS(disk_fields)};

uint64_t snapshot_sum(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}

void snapshot_id_text(const uint8_t id[16], char text[SNAPSHOT_ID_TEXT])
{
	for (unsigned int i = 0; i < 16; i++)
		text += snprintf(text, 4, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
}

uint64_t snapshot_sums_len(uint64_t memory_bytes)
{
	return (memory_bytes / SNAPSHOT_SUM_BYTES + (memory_bytes % SNAPSHOT_SUM_BYTES != 0)) * 8;
}

uint64_t snapshot_pages_len(uint64_t memory_bytes)
{
	return (memory_bytes / SNAPSHOT_PAGE + 7) / 8;
}

bool snapshot_state_is_header(const uint8_t header[SNAPSHOT_HEADER_SIZE])
{
	return memcmp(header, state_file_magic, sizeof(state_file_magic)) == 0;
}

bool snapshot_state_is_diff(const struct snapshot_state *state)
{
	return state->pages.len != 0;
}

bool snapshot_state_has_page(const struct snapshot_state *state, uint64_t page)
{
	return !state->pages.len || ((const uint8_t *)state->pages.data)[page / 8] >> (page % 8) & 1;
}

/* ---- what must hold, for the writer, too ---- */

static int state_file_judge_memory(const struct snapshot_state *state, struct err *err)
{
	uint64_t bytes = state->memory_bytes, pages = bytes / SNAPSHOT_PAGE;

	if (bytes < MACHINE_MIN_MEMORY || bytes > MACHINE_MAX_MEMORY || bytes % SNAPSHOT_PAGE)
		return err_set(err, -EBADMSG, "damaged: %" PRIu64 " bytes of memory", bytes);
	if (state->sums.len != snapshot_sums_len(bytes))
		return err_set(err, -EBADMSG, "damaged: %zu bytes of sums for %" PRIu64 " of memory", state->sums.len,
			       bytes);
	if (state->pages.len && state->pages.len != snapshot_pages_len(bytes))
		return err_set(err, -EBADMSG, "damaged: %zu bytes for the %" PRIu64 " pages of a diff",
			       state->pages.len, pages);
	if (state->pages.len && pages % 8 &&
	    ((const uint8_t *)state->pages.data)[pages / 8] >> (pages % 8))
		return err_set(err, -EBADMSG, "damaged: a page behind the memory's end");
	return 0;
}

static int state_file_judge(const struct snapshot_state *state, struct err *err)
{
	static const uint8_t none[16];
	bool has_parent = memcmp(state->parent, none, sizeof(none)) != 0;

	if (memcmp(state->id, none, sizeof(none)) == 0)
		return err_set(err, -EBADMSG, "damaged: no id");
	if (has_parent != snapshot_state_is_diff(state))
		return err_set(err, -EBADMSG, "damaged: %s", has_parent ? "a diff without pages" :
									  "a diff without a parent");
	if (!state->description.len || state->description.len > SNAPSHOT_MAX_DESCRIPTION)
		return err_set(err, -EBADMSG, "damaged: a description of %zu bytes", state->description.len);
	if (!state->machine.len || state->machine.len > SNAPSHOT_MAX_MACHINE)
		return err_set(err, -EBADMSG, "damaged: a machine's state of %zu bytes", state->machine.len);
	return state_file_judge_memory(state, err);
}

/* ---- writing ---- */

static int state_file_add(struct state_buffer *out, const char *kind, const char *id, const void *data, size_t len)
{
	char name[16 + MACHINE_MAX_NAME];
	uint8_t head[1 + sizeof(name) + 8];
	size_t n = (size_t)snprintf(name, sizeof(name), "%s%s", kind, id);

	head[0] = (uint8_t)n;
	memcpy(head + 1, name, n);
	put_le64(head + 1 + n, len);
	return state_buffer_add(out, head, 1 + n + 8) ?: state_buffer_add(out, data, len);
}

static int state_file_add_record(struct state_buffer *out, const struct state_table *table, const char *kind,
				 const char *id, void *object, struct err *err)
{
	struct state_buffer record = {0};
	int code = state_save(table, object, &record, err) ?: state_file_add(out, kind, id, record.data, record.len);

	state_buffer_free(&record);
	return code;
}

static int state_file_add_sections(struct snapshot_state *state, struct state_buffer *out, struct err *err)
{
	const struct {
		const char *name;
		const struct snapshot_bytes *bytes;
	} plain[] = {
		{"machine.json", &state->description}, {"machine", &state->machine}, {"sums", &state->sums},
		{"pages", &state->pages},
	};
	int code = state_file_add_record(out, &snapshot_table, "snapshot", "", state, err);

	for (size_t i = 0; !code && i < ARRAY_SIZE(plain); i++)
		if (plain[i].bytes->len)
			code = state_file_add(out, plain[i].name, "", plain[i].bytes->data, plain[i].bytes->len);
	for (size_t i = 0; !code && i < state->disk_count; i++)
		code = state_file_add_record(out, &disk_table, "disk/", state->disks[i].id, &state->disks[i], err);
	for (size_t i = 0; !code && i < state->device_count; i++)
		code = state_file_add(out, "device/", state->devices[i].id, state->devices[i].state.data,
				      state->devices[i].state.len);
	return code;
}

static void state_file_put_header(struct state_buffer *out)
{
	memcpy(out->data, state_file_magic, sizeof(state_file_magic));
	put_le32(out->data + AT_VERSION, SNAPSHOT_VERSION);
	put_le32(out->data + AT_ARCHITECTURE, snapshot_architecture);
	put_le64(out->data + AT_LENGTH, out->len);
	put_le64(out->data + AT_SUM, snapshot_sum(out->data + SNAPSHOT_HEADER_SIZE, out->len - SNAPSHOT_HEADER_SIZE));
}

int snapshot_state_write(const struct snapshot_state *state, struct state_buffer *out, struct err *err)
{
	const uint8_t header[SNAPSHOT_HEADER_SIZE] = {0};
	struct snapshot_state copy = *state; /* saving takes what may be written */
	int code = state_file_judge(state, err);

	if (code)
		return err_prefix(err, -EINVAL, "a snapshot's state");
	code = state_buffer_add(out, header, sizeof(header)) ?: state_file_add_sections(&copy, out, err);
	if (code)
		return err_sys(err, code, "a snapshot's state");
	if (out->len > SNAPSHOT_MAX_STATE)
		return err_set(err, -EFBIG, "the state of the machine's host devices has more than 4 GiB");
	state_file_put_header(out);
	return 0;
}

/* ---- reading ---- */

struct state_file_parser {
	const uint8_t *data;
	size_t len;
	struct snapshot_state *state;
	bool has_snapshot;
};

int snapshot_state_check_header(const uint8_t data[SNAPSHOT_HEADER_SIZE], uint64_t len, struct err *err)
{
	if (!snapshot_state_is_header(data))
		return err_set(err, -EBADMSG, "not the state of a snapshot");
	if (get_le32(data + AT_VERSION) != SNAPSHOT_VERSION)
		return err_set(err, -ENOTSUP,
			       "a snapshot of format version %u, this program knows %u; use the mvmm that wrote it",
			       get_le32(data + AT_VERSION), SNAPSHOT_VERSION);
	if (get_le32(data + AT_ARCHITECTURE) != snapshot_architecture)
		return err_set(err, -ENOTSUP,
			       "a snapshot of another architecture (ELF machine %u, this program runs %u); restore it "
			       "on a host of that architecture",
			       get_le32(data + AT_ARCHITECTURE), snapshot_architecture);
	if (get_le64(data + AT_LENGTH) != len)
		return err_set(err, -EBADMSG, "damaged: %" PRIu64 " bytes, of %" PRIu64, len, get_le64(data + AT_LENGTH));
	return 0;
}

static int state_file_check_sum(const uint8_t *data, size_t len, struct err *err)
{
	if (get_le64(data + AT_SUM) != snapshot_sum(data + SNAPSHOT_HEADER_SIZE, len - SNAPSHOT_HEADER_SIZE))
		return err_set(err, -EBADMSG, "damaged: its checksum is another");
	return 0;
}

/* The next section: its name as a string and its bytes. */
static int state_file_next(struct state_file_parser *in, char name[256], struct snapshot_bytes *ret, struct err *err)
{
	size_t name_len = in->data[0];
	uint64_t len;

	if (in->len < 1 + name_len + 8)
		return err_set(err, -EBADMSG, "damaged: a section is cut off");
	for (size_t i = 0; i < name_len; i++)
		if (in->data[1 + i] <= ' ' || in->data[1 + i] > '~')
			return err_set(err, -EBADMSG, "damaged: a section without a name");
	memcpy(name, in->data + 1, name_len);
	name[name_len] = 0;
	len = get_le64(in->data + 1 + name_len);
	in->data += 1 + name_len + 8;
	in->len -= 1 + name_len + 8;
	if (len > in->len)
		return err_set(err, -EBADMSG, "damaged: the section %.60s is cut off", name);
	*ret = (struct snapshot_bytes){in->data, (size_t)len};
	in->data += len;
	in->len -= (size_t)len;
	return 0;
}

static int state_file_twice(const char *name, struct err *err)
{
	return err_set(err, -EBADMSG, "damaged: the section %.60s is there twice", name);
}

static int state_file_take_bytes(struct snapshot_bytes *to, const char *name, const struct snapshot_bytes *bytes,
				 struct err *err)
{
	if (to->data)
		return state_file_twice(name, err);
	*to = *bytes;
	return bytes->len ? 0 : err_set(err, -EBADMSG, "damaged: the section %.60s is empty", name);
}

static int state_file_take_record(const struct state_table *table, void *object, const struct snapshot_bytes *bytes,
				  struct err *err)
{
	int code = state_load(table, object, bytes->data, bytes->len, err);

	return code ? err_prefix(err, code, "damaged") : 0;
}

static int state_file_take_disk(struct snapshot_state *state, const char *id, const struct snapshot_bytes *bytes,
				struct err *err)
{
	struct snapshot_disk *disk = &state->disks[state->disk_count];

	if (machine_name_check(id, NULL) || state->disk_count == ARRAY_SIZE(state->disks))
		return err_set(err, -EBADMSG, "damaged: disk %.60s", id);
	for (size_t i = 0; i < state->disk_count; i++)
		if (strcmp(state->disks[i].id, id) == 0)
			return state_file_twice(id, err);
	snprintf(disk->id, sizeof(disk->id), "%s", id);
	state->disk_count++;
	return state_file_take_record(&disk_table, disk, bytes, err);
}

static int state_file_take_device(struct snapshot_state *state, const char *id, const struct snapshot_bytes *bytes,
				  struct err *err)
{
	struct snapshot_device *device = &state->devices[state->device_count];

	if (machine_name_check(id, NULL) || state->device_count == ARRAY_SIZE(state->devices))
		return err_set(err, -EBADMSG, "damaged: device %.60s", id);
	for (size_t i = 0; i < state->device_count; i++)
		if (strcmp(state->devices[i].id, id) == 0)
			return state_file_twice(id, err);
	snprintf(device->id, sizeof(device->id), "%s", id);
	device->state = *bytes;
	state->device_count++;
	return 0;
}

static int state_file_take(struct state_file_parser *in, const char *name, const struct snapshot_bytes *bytes,
			   struct err *err)
{
	struct snapshot_state *state = in->state;

	if (strcmp(name, "snapshot") == 0) {
		if (in->has_snapshot)
			return state_file_twice(name, err);
		in->has_snapshot = true;
		return state_file_take_record(&snapshot_table, state, bytes, err);
	}
	if (strcmp(name, "machine.json") == 0)
		return state_file_take_bytes(&state->description, name, bytes, err);
	if (strcmp(name, "machine") == 0)
		return state_file_take_bytes(&state->machine, name, bytes, err);
	if (strcmp(name, "sums") == 0)
		return state_file_take_bytes(&state->sums, name, bytes, err);
	if (strcmp(name, "pages") == 0)
		return state_file_take_bytes(&state->pages, name, bytes, err);
	if (strncmp(name, "disk/", 5) == 0)
		return state_file_take_disk(state, name + 5, bytes, err);
	if (strncmp(name, "device/", 7) == 0)
		return state_file_take_device(state, name + 7, bytes, err);
	return err_set(err, -ENOTSUP, "has the section %.60s, which this program does not know; use the mvmm that wrote it",
		       name);
}

static int state_file_parse(struct state_file_parser *in, struct err *err)
{
	struct snapshot_bytes bytes;
	char name[256];
	int code = in->len < SNAPSHOT_HEADER_SIZE ? err_set(err, -EBADMSG, "not the state of a snapshot") :
		   snapshot_state_check_header(in->data, in->len, err) ?: state_file_check_sum(in->data, in->len, err);

	if (code)
		return code;
	in->data += SNAPSHOT_HEADER_SIZE;
	in->len -= SNAPSHOT_HEADER_SIZE;
	while (!code && in->len)
		code = state_file_next(in, name, &bytes, err) ?: state_file_take(in, name, &bytes, err);
	return code ?: state_file_judge(in->state, err);
}

int snapshot_state_parse(const void *data, size_t len, struct snapshot_state **ret, struct err *err)
{
	struct state_file_parser in = {.data = data, .len = len, .state = calloc(1, sizeof(struct snapshot_state))};
	int code = in.state ? state_file_parse(&in, err) : err_sys(err, -ENOMEM, "a snapshot's state");

	if (code) {
		free(in.state);
		return code;
	}
	*ret = in.state;
	return 0;
}
