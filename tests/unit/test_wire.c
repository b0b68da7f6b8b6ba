/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/migration/wire: golden streams that the encoder writes byte for byte and the tables accept step by step; what is
 * out of place, too long, misaligned or of another version is refused by name.
 */
#include "tests/unit/test.h"
#include "vmm/migration/wire.h"

#include <ctype.h>

/* ---- golden streams ---- */

struct golden {
	uint8_t bytes[KIB(64)];
	bool from_target[KIB(64)];
	size_t len;
};

static struct golden golden, written;

static unsigned int hex_digit(char c)
{
	CHECK(isxdigit((unsigned char)c));
	return (unsigned int)(isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10);
}

static void golden_add(struct golden *g, uint8_t byte, bool from_target)
{
	CHECK(g->len < sizeof(g->bytes));
	g->bytes[g->len] = byte;
	g->from_target[g->len++] = from_target;
}

/* One word of a line: bytes in hexadecimal, perhaps "*COUNT". */
static void golden_word(struct golden *g, const char *word, bool from_target)
{
	size_t digits = strcspn(word, "*");
	unsigned long times = word[digits] ? strtoul(word + digits + 1, NULL, 10) : 1;

	CHECK(digits % 2 == 0);
	while (times--)
		for (size_t i = 0; i < digits; i += 2)
			golden_add(g, (uint8_t)(hex_digit(word[i]) << 4 | hex_digit(word[i + 1])), from_target);
}

static void golden_read(struct golden *g, const char *name)
{
	char path[512], line[1024];
	bool from_target = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/golden/%s", TESTS_UNIT, name);
	file = fopen(path, "r");
	CHECK(file);
	g->len = 0;
	while (fgets(line, sizeof(line), file)) {
		char *save = NULL;

		if (line[0] == '#')
			continue;
		for (char *word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
			if (strcmp(word, "S") == 0 || strcmp(word, "T") == 0)
				from_target = *word == 'T';
			else
				golden_word(g, word, from_target);
		}
	}
	fclose(file);
}

static void write_bytes(const void *bytes, size_t len, enum wire_side side)
{
	for (size_t i = 0; i < len; i++)
		golden_add(&written, ((const uint8_t *)bytes)[i], side == WIRE_TARGET);
}

static void write_frame(enum wire_side side, enum wire_type type, uint64_t a, uint64_t b, const void *payload, size_t len)
{
	const struct wire_frame frame = {.type = type, .length = (uint32_t)len, .a = a, .b = b};
	uint8_t header[WIRE_HEADER_SIZE];

	wire_put_header(header, &frame);
	write_bytes(header, sizeof(header), side);
	write_bytes(payload, len, side);
}

static void write_hello_of(uint32_t version, enum wire_side side, enum wire_kind kind, uint32_t index, uint32_t count)
{
	struct wire_hello hello = {.version = version, .oldest = 1, .kind = kind, .index = index, .count = count};
	const struct wire_frame frame = wire_hello_frame();
	uint8_t bytes[WIRE_HELLO_SIZE];

	for (unsigned int i = 0; i < WIRE_SESSION_SIZE; i++)
		hello.session[i] = (uint8_t)(0x10 + i);
	wire_put_hello(bytes, &hello);
	write_frame(side, frame.type, frame.a, frame.b, bytes, sizeof(bytes));
}

static void write_hello(enum wire_side side, enum wire_kind kind, uint32_t index, uint32_t count)
{
	write_hello_of(1, side, kind, index, count);
}

static void golden_equals(const char *name)
{
	golden_read(&golden, name);
	for (size_t i = 0; i < golden.len && i < written.len; i++)
		if (golden.bytes[i] != written.bytes[i] || golden.from_target[i] != written.from_target[i]) {
			printf("# %s differs at byte %zu\n", name, i);
			CHECK(false);
		}
	CHECK_EQ(written.len, golden.len);
	written.len = 0;
}

/* A frame of the type that check_frame has nothing against. */
static struct wire_frame sound(uint32_t type)
{
	switch (type) {
	case WIRE_HELLO:
		return wire_hello_frame();
	case WIRE_PAGES:
		return (struct wire_frame){.type = type, .length = 4096};
	case WIRE_ZERO:
		return (struct wire_frame){.type = type, .b = 4096};
	case WIRE_ZSTD:
		return (struct wire_frame){.type = type, .b = 4096, .length = 9};
	case WIRE_BLOCKS:
		return (struct wire_frame){.type = type, .length = 512};
	case WIRE_HOLE:
		return (struct wire_frame){.type = type, .b = 512};
	case WIRE_OFFER:
	case WIRE_READY:
	case WIRE_STATE:
	case WIRE_TRIAL:
	case WIRE_DATA:
	case WIRE_REFUSED:
	case WIRE_FAILED:
	case WIRE_ABORT:
		return (struct wire_frame){.type = type, .length = 2};
	default:
		return (struct wire_frame){.type = type};
	}
}

/* Nobody may say anything any more. */
static bool is_over(const struct wire_conversation *conversation)
{
	for (uint32_t type = 0; type < 80; type++)
		for (int side = 0; side < 2; side++) {
			const struct wire_frame frame = sound(type);
			struct wire_conversation trial = *conversation;

			if (!wire_step(&trial, (enum wire_side)side, &frame, NULL))
				return false;
		}
	return true;
}

/* Reads a golden stream as both sides do; returns how many frames it has. */
static unsigned int golden_steps(const char *name, enum wire_kind kind)
{
	struct wire_conversation conversation;
	struct wire_hello hello;
	unsigned int frames = 0;
	struct err err = {""};
	size_t at = 0;

	golden_read(&golden, name);
	wire_begin(&conversation, kind);
	while (at < golden.len) {
		enum wire_side side = golden.from_target[at] ? WIRE_TARGET : WIRE_SOURCE;
		struct wire_frame frame;

		CHECK(golden.len - at >= WIRE_HEADER_SIZE);
		wire_get_header(golden.bytes + at, &frame);
		if (wire_step(&conversation, side, &frame, &err)) {
			printf("# %s at %zu: %s\n", name, at, err.text);
			CHECK(false);
		}
		at += WIRE_HEADER_SIZE;
		if (frame.type == WIRE_HELLO) {
			CHECK_EQ(wire_check_first(&frame, &err), 0);
			CHECK_EQ(wire_get_hello(golden.bytes + at, &hello, &err), 0);
			CHECK_EQ(hello.kind, kind);
			conversation.version = hello.version;
		}
		CHECK(golden.len - at >= frame.length);
		at += frame.length;
		frames++;
	}
	CHECK(is_over(&conversation));
	return frames;
}

static void control_stream_is_the_golden_one(void)
{
	static const char offer[] = "{\"memory\":[[0,2097152]]}";

	written.len = 0;
	write_hello(WIRE_SOURCE, WIRE_CONTROL, 0, 1);
	write_hello(WIRE_TARGET, WIRE_CONTROL, 0, 1);
	write_frame(WIRE_SOURCE, WIRE_OFFER, 0, 0, offer, strlen(offer));
	write_frame(WIRE_TARGET, WIRE_PROGRESS, 0, 0, NULL, 0);
	write_frame(WIRE_TARGET, WIRE_READY, 0, 0, "{}", 2);
	write_frame(WIRE_SOURCE, WIRE_PROGRESS, MIB(2), 1, NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_STOPPED, 150000, 0, NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_STATE, 0, 0, "\1\2\3\4\5", 5);
	write_frame(WIRE_SOURCE, WIRE_END, 5, 0, NULL, 0);
	write_frame(WIRE_TARGET, WIRE_LOADED, 2000000, 0, NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_GO, 0, 0, NULL, 0);
	write_frame(WIRE_TARGET, WIRE_RUNNING, 300000, 0, "{}", 2);
	golden_equals("migration-control-1.txt");
	CHECK_EQ(golden_steps("migration-control-1.txt", WIRE_CONTROL), 12);
}

static void control_stream_with_a_trial_is_the_golden_one(void)
{
	written.len = 0;
	write_hello_of(2, WIRE_SOURCE, WIRE_CONTROL, 0, 1);
	write_hello_of(2, WIRE_TARGET, WIRE_CONTROL, 0, 1);
	write_frame(WIRE_SOURCE, WIRE_OFFER, 0, 0, "{}", 2);
	write_frame(WIRE_TARGET, WIRE_READY, 0, 0, "{}", 2);
	write_frame(WIRE_SOURCE, WIRE_TRIAL, 0, 0, "\1\2\3", 3);
	write_frame(WIRE_TARGET, WIRE_TRIED, 1000000, 0, NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_ABORT, 0, 0, "?", 1);
	golden_equals("migration-control-2.txt");
	CHECK_EQ(golden_steps("migration-control-2.txt", WIRE_CONTROL), 7);
}

static void memory_stream_is_the_golden_one(void)
{
	/* What one zstd made of 8 KiB; another may do it otherwise, but all must understand it. */
	static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x1f, 0x4d, 0x00, 0x00,
				       0x10, 0x5a, 0x5a, 0x01, 0x00, 0xfb, 0xdf, 0x03, 0x2c};
	static uint8_t pages[8192];

	written.len = 0;
	memset(pages, 0xa1, 4096);
	memset(pages + 4096, 0xb2, 4096);
	write_hello(WIRE_SOURCE, WIRE_MEMORY, 1, 4);
	write_hello(WIRE_TARGET, WIRE_MEMORY, 1, 4);
	write_frame(WIRE_SOURCE, WIRE_PAGES, MIB(2), 0, pages, sizeof(pages));
	write_frame(WIRE_SOURCE, WIRE_ZERO, MIB(2) + 8192, 16384, NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_ZSTD, MIB(10), 8192, zstd, sizeof(zstd));
	memset(pages, 0xc3, 4096);
	write_frame(WIRE_SOURCE, WIRE_PAGES, MIB(2), 0, pages, 4096);
	write_frame(WIRE_SOURCE, WIRE_END, 5, 4, NULL, 0);
	golden_equals("migration-memory-1.txt");
	CHECK_EQ(golden_steps("migration-memory-1.txt", WIRE_MEMORY), 7);
}

static void device_stream_is_the_golden_one(void)
{
	uint8_t bytes[16];

	written.len = 0;
	memset(bytes, 0x11, sizeof(bytes));
	write_hello(WIRE_SOURCE, WIRE_DEVICE, 0, 2);
	write_hello(WIRE_TARGET, WIRE_DEVICE, 0, 2);
	write_frame(WIRE_SOURCE, WIRE_DATA, 0, 0, bytes, 16);
	write_frame(WIRE_SOURCE, WIRE_INITIAL, 16, 0, NULL, 0);
	write_frame(WIRE_TARGET, WIRE_ACK, 16, 0, NULL, 0);
	memset(bytes, 0x22, 8);
	write_frame(WIRE_SOURCE, WIRE_DATA, 16, 0, bytes, 8);
	write_frame(WIRE_SOURCE, WIRE_END, 24, 2, NULL, 0);
	golden_equals("migration-device-1.txt");
	CHECK_EQ(golden_steps("migration-device-1.txt", WIRE_DEVICE), 7);
}

static void disk_stream_is_the_golden_one(void)
{
	uint8_t bytes[1024];

	written.len = 0;
	write_hello_of(2, WIRE_SOURCE, WIRE_DISK, 0, 1);
	write_hello_of(2, WIRE_TARGET, WIRE_DISK, 0, 1);
	write_frame(WIRE_SOURCE, WIRE_SELECT, 1, 0, NULL, 0);
	memset(bytes, 0xa1, 512);
	memset(bytes + 512, 0xb2, 512);
	write_frame(WIRE_SOURCE, WIRE_BLOCKS, KIB(64), 0, bytes, 1024);
	write_frame(WIRE_SOURCE, WIRE_HOLE, KIB(128), MIB(1), NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_FLUSH, 0, 0, NULL, 0);
	write_frame(WIRE_TARGET, WIRE_FLUSHED, 0, 0, NULL, 0);
	write_frame(WIRE_SOURCE, WIRE_SELECT, 0, 0, NULL, 0);
	memset(bytes, 0xc3, 512);
	write_frame(WIRE_SOURCE, WIRE_BLOCKS, 0, 0, bytes, 512);
	write_frame(WIRE_SOURCE, WIRE_END, 1536, MIB(1), NULL, 0);
	golden_equals("migration-disk-2.txt");
	CHECK_EQ(golden_steps("migration-disk-2.txt", WIRE_DISK), 10);
}

/* ---- order ---- */

static const struct step {
	enum wire_side side;
	uint32_t type;
} control_steps[] = {
	{WIRE_SOURCE, WIRE_HELLO}, {WIRE_TARGET, WIRE_HELLO},   {WIRE_SOURCE, WIRE_OFFER}, {WIRE_TARGET, WIRE_READY},
	{WIRE_SOURCE, WIRE_TRIAL}, {WIRE_TARGET, WIRE_TRIED},
	{WIRE_SOURCE, WIRE_STOPPED}, {WIRE_SOURCE, WIRE_STATE}, {WIRE_SOURCE, WIRE_END},   {WIRE_TARGET, WIRE_LOADED},
	{WIRE_SOURCE, WIRE_GO},    {WIRE_TARGET, WIRE_RUNNING},
};

/* What is right at each step of the control conversation: that step, and what may cross it. */
static bool may(size_t step, enum wire_side side, uint32_t type)
{
	bool open = step >= 2 && step < ARRAY_SIZE(control_steps);

	if (step < ARRAY_SIZE(control_steps) && control_steps[step].side == side && control_steps[step].type == type)
		return true;
	switch (type) {
	case WIRE_TRIAL:
	case WIRE_STOPPED: /* with or without practice before, and after that more of it */
		return side == WIRE_SOURCE && (step == 4 || step == 6);
	case WIRE_PROGRESS:
		return open;
	case WIRE_ABORT:
		return open && (side == WIRE_TARGET || step <= 10);
	case WIRE_FAILED:
		return side == WIRE_TARGET && open && step >= 3;
	case WIRE_REFUSED:
		return side == WIRE_TARGET && step <= 3;
	default:
		return false;
	}
}

static void only_what_is_due_is_taken(void)
{
	struct wire_conversation at, trial;

	wire_begin(&at, WIRE_CONTROL);
	for (size_t step = 0; step <= ARRAY_SIZE(control_steps); step++) {
		at.version = WIRE_VERSION;
		for (uint32_t type = 0; type < 80; type++) {
			for (int side = 0; side < 2; side++) {
				const struct wire_frame frame = sound(type);
				struct err err = {""};
				int code;

				trial = at;
				code = wire_step(&trial, side, &frame, &err);
				CHECK_EQ(code, may(step, side, type) ? 0 : -EPROTO);
				CHECK(code == 0 || err.text[0]);
				CHECK(code == 0 || trial.state == at.state);
			}
		}
		if (step < ARRAY_SIZE(control_steps)) {
			const struct wire_frame frame = sound(control_steps[step].type);

			CHECK_EQ(wire_step(&at, control_steps[step].side, &frame, NULL), 0);
			CHECK_EQ(wire_open(&at), step >= 1);
		}
	}
}

static void channels_keep_to_their_own(void)
{
	static const struct {
		uint32_t of_source[8], of_target;
	} kinds[WIRE_KINDS] = {
		[WIRE_MEMORY] = {{WIRE_PAGES, WIRE_ZERO, WIRE_ZSTD, WIRE_END}, 0},
		[WIRE_DEVICE] = {{WIRE_DATA, WIRE_INITIAL, WIRE_END}, WIRE_ACK},
		[WIRE_DISK] = {{WIRE_SELECT, WIRE_BLOCKS, WIRE_HOLE, WIRE_FLUSH, WIRE_END}, WIRE_FLUSHED},
	};
	const struct wire_frame hello = wire_hello_frame();

	for (int kind = WIRE_MEMORY; kind <= WIRE_DISK; kind++) {
		for (uint32_t type = 1; type < 80; type++) {
			const struct wire_frame frame = sound(type);
			struct wire_conversation conversation;
			bool found = false;

			wire_begin(&conversation, (enum wire_kind)kind);
			CHECK_EQ(wire_step(&conversation, WIRE_SOURCE, &frame, NULL), type == WIRE_HELLO ? 0 : -EPROTO);
			wire_begin(&conversation, (enum wire_kind)kind);
			CHECK_EQ(wire_step(&conversation, WIRE_SOURCE, &hello, NULL), 0);
			CHECK_EQ(wire_step(&conversation, WIRE_TARGET, &hello, NULL), 0);
			conversation.version = WIRE_VERSION;
			CHECK_EQ(wire_step(&conversation, WIRE_TARGET, &frame, NULL), type == kinds[kind].of_target ? 0 : -EPROTO);
			for (size_t i = 0; i < ARRAY_SIZE(kinds[kind].of_source); i++)
				found |= kinds[kind].of_source[i] == type;
			CHECK_EQ(wire_step(&conversation, WIRE_SOURCE, &frame, NULL), found ? 0 : -EPROTO);
			CHECK_EQ(is_over(&conversation), type == WIRE_END);
		}
	}
}

/* Two that have agreed on a version do not say what came later. */
static void versions_have_their_own_frames(void)
{
	const struct wire_frame hello = wire_hello_frame(), select = sound(WIRE_SELECT);

	for (uint32_t version = 1; version <= WIRE_VERSION; version++) {
		struct wire_conversation conversation;

		wire_begin(&conversation, WIRE_DISK);
		CHECK_EQ(wire_step(&conversation, WIRE_SOURCE, &hello, NULL), 0);
		CHECK_EQ(wire_step(&conversation, WIRE_TARGET, &hello, NULL), 0);
		conversation.version = version;
		CHECK_EQ(wire_step(&conversation, WIRE_SOURCE, &select, NULL), version >= 2 ? 0 : -EPROTO);
	}
}

/* ---- numbers ---- */

static int step_once(enum wire_kind kind, struct wire_frame frame, struct err *err)
{
	struct wire_conversation conversation;
	const struct wire_frame hello = wire_hello_frame();

	wire_begin(&conversation, kind);
	CHECK_EQ(wire_step(&conversation, WIRE_SOURCE, &hello, NULL), 0);
	CHECK_EQ(wire_step(&conversation, WIRE_TARGET, &hello, NULL), 0);
	conversation.version = WIRE_VERSION;
	return wire_step(&conversation, WIRE_SOURCE, &frame, err);
}

static void lengths_and_addresses_are_bounded(void)
{
	static const struct {
		enum wire_kind kind;
		struct wire_frame frame;
		int code;
	} cases[] = {
		{WIRE_MEMORY, {WIRE_PAGES, MIB(2), 0, 0}, 0},
		{WIRE_MEMORY, {WIRE_PAGES, MIB(2), MIB(2), 0}, 0},
		{WIRE_MEMORY, {WIRE_PAGES, 4096, MIB(4) - 4096, 0}, 0},
		{WIRE_MEMORY, {WIRE_PAGES, 4096, UINT64_MAX - 4095, 0}, 0},
		{WIRE_MEMORY, {WIRE_PAGES, 0, 0, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, 4095, 0, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, 4097, 0, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, 4096, 1, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, 4096, 0, 1}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, 8192, MIB(4) - 4096, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, MIB(2) + 4096, 0, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_PAGES, UINT32_MAX, 0, 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZERO, 0, MIB(6), MIB(2)}, 0},
		{WIRE_MEMORY, {WIRE_ZERO, 0, MIB(6), 0}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZERO, 0, MIB(6) + 4096, MIB(2)}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZERO, 0, 4096, UINT64_MAX & ~4095ull}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZERO, 4, 0, 4096}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZSTD, 1, 0, KIB(256)}, 0},
		{WIRE_MEMORY, {WIRE_ZSTD, 1, 0, KIB(260)}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZSTD, 4096, 0, 4096}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZSTD, 0, 0, 4096}, -EPROTO},
		{WIRE_MEMORY, {WIRE_ZSTD, 9, 2048, 4096}, -EPROTO},
		{WIRE_MEMORY, {WIRE_END, 1, 0, 0}, -EPROTO},
		{WIRE_DEVICE, {WIRE_DATA, MIB(1), 77, 0}, 0},
		{WIRE_DEVICE, {WIRE_DATA, MIB(1) + 1, 0, 0}, -EPROTO},
		{WIRE_DEVICE, {WIRE_DATA, 0, 0, 0}, -EPROTO},
		{WIRE_DEVICE, {WIRE_DATA, 4, UINT64_MAX - 2, 0}, -EPROTO},
		{WIRE_DEVICE, {WIRE_DATA, 4, 0, 4}, -EPROTO},
		{WIRE_DISK, {WIRE_BLOCKS, MIB(1), 512, 0}, 0},
		{WIRE_DISK, {WIRE_BLOCKS, 512, UINT64_MAX - 511, 0}, 0},
		{WIRE_DISK, {WIRE_BLOCKS, MIB(1) + 512, 0, 0}, -EPROTO},
		{WIRE_DISK, {WIRE_BLOCKS, 0, 0, 0}, -EPROTO},
		{WIRE_DISK, {WIRE_BLOCKS, 513, 0, 0}, -EPROTO},
		{WIRE_DISK, {WIRE_BLOCKS, 512, 256, 0}, -EPROTO},
		{WIRE_DISK, {WIRE_BLOCKS, 1024, UINT64_MAX - 511, 0}, -EPROTO},
		{WIRE_DISK, {WIRE_BLOCKS, 512, 0, 1}, -EPROTO},
		{WIRE_DISK, {WIRE_HOLE, 0, 512, MIB(64)}, 0},
		{WIRE_DISK, {WIRE_HOLE, 0, 0, MIB(64) + 512}, -EPROTO},
		{WIRE_DISK, {WIRE_HOLE, 0, 0, 0}, -EPROTO},
		{WIRE_DISK, {WIRE_HOLE, 0, 1, 512}, -EPROTO},
		{WIRE_DISK, {WIRE_HOLE, 0, UINT64_MAX - 511, 1024}, -EPROTO},
		{WIRE_DISK, {WIRE_FLUSH, 0, 1, 0}, -EPROTO},
		{WIRE_CONTROL, {WIRE_OFFER, MIB(1), 0, 0}, 0},
		{WIRE_CONTROL, {WIRE_OFFER, MIB(1) + 1, 0, 0}, -EPROTO},
		{WIRE_CONTROL, {WIRE_OFFER, 2, 1, 0}, -EPROTO},
		{WIRE_CONTROL, {WIRE_ABORT, 511, 0, 0}, 0},
		{WIRE_CONTROL, {WIRE_ABORT, 512, 0, 0}, -EPROTO},
		{WIRE_CONTROL, {WIRE_ABORT, 0, 0, 0}, -EPROTO},
		{WIRE_CONTROL, {WIRE_PROGRESS, 1, 0, 0}, -EPROTO},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = {""};
		int code = step_once(cases[i].kind, cases[i].frame, &err);

		if (code != cases[i].code)
			printf("# case %zu: %s\n", i, err.text);
		CHECK_EQ(code, cases[i].code);
	}
}

static void refusals_name_the_frame(void)
{
	struct err err;

	step_once(WIRE_MEMORY, (struct wire_frame){WIRE_PAGES, 4096, 0x1800, 0}, &err);
	CHECK_STR(err.text, "PAGES with 0x1800, 0x0 and 4096 bytes");
	step_once(WIRE_MEMORY, (struct wire_frame){WIRE_END, 7, 0, 0}, &err);
	CHECK_STR(err.text, "END of 7 bytes");
	step_once(WIRE_MEMORY, (struct wire_frame){WIRE_STATE, 7, 0, 0}, &err);
	CHECK_STR(err.text, "STATE from the source, after HELLO of the memory channel");
	step_once(WIRE_CONTROL, (struct wire_frame){77, 7, 0, 0}, &err);
	CHECK_STR(err.text, "a frame of unknown type 77");
}

/* ---- HELLO ---- */

static void hello_of_nonsense_is_refused(void)
{
	static const struct {
		size_t at;
		uint32_t value;
		int code;
	} cases[] = {
		{24, WIRE_MEMORY, 0}, {24, WIRE_KINDS, -EPROTO}, {24, UINT32_MAX, -EPROTO}, {28, 1, -EPROTO}, {32, 0, -EPROTO},
		{32, 2, -EPROTO}, {0, 0, -EPROTO}, {4, 0, -EPROTO}, {4, 2, -EPROTO}, {0, 9, 0},
	};
	struct wire_hello hello = {.version = 1, .oldest = 1, .kind = WIRE_CONTROL, .index = 0, .count = 1};
	uint8_t bytes[WIRE_HELLO_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct wire_hello got;

		wire_put_hello(bytes, &hello);
		put_le32(bytes + cases[i].at, cases[i].value);
		CHECK_EQ(wire_get_hello(bytes, &got, NULL), cases[i].code);
	}
	hello = (struct wire_hello){.version = 1, .oldest = 1, .kind = WIRE_MEMORY, .index = 63, .count = 64};
	wire_put_hello(bytes, &hello);
	CHECK_EQ(wire_get_hello(bytes, &hello, NULL), 0);
	put_le32(bytes + 32, 65);
	CHECK_EQ(wire_get_hello(bytes, &hello, NULL), -EPROTO);
}

static void versions_meet_or_are_named(void)
{
	static const struct {
		uint32_t mine, my_oldest, theirs, their_oldest, agreed;
	} cases[] = {{1, 1, 1, 1, 1}, {2, 1, 1, 1, 1}, {1, 1, 2, 1, 1}, {3, 2, 4, 3, 3}, {3, 2, 1, 1, 0}, {3, 2, 5, 4, 0}};
	struct wire_hello mine = {0}, theirs = {0};
	uint32_t version;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		mine = (struct wire_hello){.version = cases[i].mine, .oldest = cases[i].my_oldest};
		theirs = (struct wire_hello){.version = cases[i].theirs, .oldest = cases[i].their_oldest};
		version = 0;
		CHECK_EQ(wire_agree(&mine, &theirs, &version, &err), cases[i].agreed ? 0 : -EPROTONOSUPPORT);
		CHECK_EQ(version, cases[i].agreed);
	}
	CHECK(strstr(err.text, "versions 4 to 5 of the migration stream, this host 2 to 3"));
}

static void strangers_are_told_apart(void)
{
	static const struct {
		const char *bytes, *words;
	} cases[] = {
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03-----------------------", "the peer uses TLS"},
		{"\x15\x03\x03\x00\x02\x02\x28-----------------------", "the peer uses TLS"},
		{"GET / HTTP/1.1\r\nHost: example\r\n", "the peer does not use mvmm's migration protocol"},
		{"\1\0\0\0\x28\0\0\0mvmmmigs\0\0\0\0\0\0\0\0", "the peer does not use mvmm's migration protocol"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct wire_frame frame;
		struct err err = {""};

		wire_get_header((const uint8_t *)cases[i].bytes, &frame);
		CHECK_EQ(wire_check_first(&frame, &err), -EPROTO);
		CHECK(strstr(err.text, cases[i].words));
	}
}

TEST_MAIN(TEST(control_stream_is_the_golden_one), TEST(control_stream_with_a_trial_is_the_golden_one),
	  TEST(memory_stream_is_the_golden_one),
	  TEST(device_stream_is_the_golden_one), TEST(disk_stream_is_the_golden_one), TEST(only_what_is_due_is_taken),
	  TEST(channels_keep_to_their_own), TEST(versions_have_their_own_frames),
	  TEST(lengths_and_addresses_are_bounded), TEST(refusals_name_the_frame), TEST(hello_of_nonsense_is_refused),
	  TEST(versions_meet_or_are_named), TEST(strangers_are_told_apart))
