/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See wire.h. Two tables define the protocol: types[] has the format of each type of frame and the version that
 * introduced it; moves[] has who may send it in which state, and the next state. A later version adds rows; the number
 * of a removed row is not reused.
 */
#include "vmm/migration/wire.h"

enum state {
	NEW,      /* nothing was sent */
	GREETED,  /* after the source's HELLO */
	OPEN,     /* after the target's HELLO */
	OFFERED,
	ROUNDS,   /* the target is ready, memory is sent */
	TRYING,   /* the target loads a state for the rehearsal */
	STOPPED,
	STATED,
	COMPLETE, /* END on the control channel */
	LOADED,
	GONE,     /* after GO: the source does not run the guest again by itself */
	OVER,
	STATES,
};

static const char *const state_names[STATES] = {
	[NEW] = "before HELLO",   [GREETED] = "after the first HELLO", [OPEN] = "after HELLO",
	[OFFERED] = "after OFFER",
	[ROUNDS] = "after READY", [TRYING] = "after TRIAL",            [STOPPED] = "after STOPPED",
	[STATED] = "after STATE", [COMPLETE] = "after END",
	[LOADED] = "after LOADED", [GONE] = "after GO",                [OVER] = "after the end",
};

/* ---- the format of frames ---- */

struct type {
	uint32_t type;
	const char *name;
	uint32_t since;    /* version */
	uint32_t min, max; /* bytes of payload */
	bool a, b;         /* used; else they must be zero */
	int (*check)(const struct wire_frame *frame);
};

/* [gpa, gpa + bytes): whole pages in one chunk. */
static bool wire_in_one_chunk(uint64_t gpa, uint64_t bytes)
{
	return bytes && (gpa | bytes) % WIRE_PAGE == 0 && bytes <= WIRE_CHUNK - gpa % WIRE_CHUNK;
}

static int wire_check_pages(const struct wire_frame *frame)
{
	return wire_in_one_chunk(frame->a, frame->length) ? 0 : -EPROTO;
}

static int wire_check_zero(const struct wire_frame *frame)
{
	return wire_in_one_chunk(frame->a, frame->b) ? 0 : -EPROTO;
}

/* Data that does not get smaller is sent uncompressed. */
static int wire_check_zstd(const struct wire_frame *frame)
{
	return wire_in_one_chunk(frame->a, frame->b) && frame->b <= WIRE_MAX_ZSTD && frame->length < frame->b ? 0 :
														-EPROTO;
}

static int wire_check_data(const struct wire_frame *frame)
{
	return range_wraps(frame->a, frame->length) ? -EPROTO : 0;
}

/* Whole sectors; the receiver checks the disk's size. */
static int wire_check_blocks(const struct wire_frame *frame)
{
	return (frame->a | frame->length) % WIRE_SECTOR || range_wraps(frame->a, frame->length) ? -EPROTO : 0;
}

static int wire_check_hole(const struct wire_frame *frame)
{
	bool bad = !frame->b || frame->b > WIRE_MAX_HOLE || (frame->a | frame->b) % WIRE_SECTOR;

	return bad || range_wraps(frame->a, frame->b) ? -EPROTO : 0;
}

static const struct type types[] = {
	{WIRE_HELLO, "HELLO", 1, WIRE_HELLO_SIZE, WIRE_HELLO_SIZE, true, false, NULL},
	{WIRE_REFUSED, "REFUSED", 1, 1, WIRE_MAX_TEXT, false, false, NULL},
	{WIRE_END, "END", 1, 0, 0, true, true, NULL},
	{WIRE_OFFER, "OFFER", 1, 2, WIRE_MAX_OFFER, false, false, NULL},
	{WIRE_READY, "READY", 1, 2, WIRE_MAX_OFFER, false, false, NULL},
	{WIRE_STOPPED, "STOPPED", 1, 0, 0, true, true, NULL},
	{WIRE_STATE, "STATE", 1, 1, WIRE_MAX_STATE, false, false, NULL},
	{WIRE_LOADED, "LOADED", 1, 0, 0, true, true, NULL},
	{WIRE_GO, "GO", 1, 0, 0, true, true, NULL},
	{WIRE_RUNNING, "RUNNING", 1, 0, WIRE_MAX_OFFER, true, true, NULL},
	{WIRE_FAILED, "FAILED", 1, 1, WIRE_MAX_TEXT, false, false, NULL},
	{WIRE_ABORT, "ABORT", 1, 1, WIRE_MAX_TEXT, false, false, NULL},
	{WIRE_PROGRESS, "PROGRESS", 1, 0, 0, true, true, NULL},
	{WIRE_TRIAL, "TRIAL", WIRE_TRIALS_SINCE, 1, WIRE_MAX_STATE, false, false, NULL},
	{WIRE_TRIED, "TRIED", WIRE_TRIALS_SINCE, 0, 0, true, false, NULL},
	{WIRE_PAGES, "PAGES", 1, WIRE_PAGE, WIRE_CHUNK, true, false, wire_check_pages},
	{WIRE_ZERO, "ZERO", 1, 0, 0, true, true, wire_check_zero},
	{WIRE_ZSTD, "ZSTD", 1, 1, WIRE_MAX_ZSTD, true, true, wire_check_zstd},
	{WIRE_DATA, "DATA", 1, 1, WIRE_MAX_DATA, true, false, wire_check_data},
	{WIRE_INITIAL, "INITIAL", 1, 0, 0, true, false, NULL},
	{WIRE_ACK, "ACK", 1, 0, 0, true, false, NULL},
	{WIRE_SELECT, "SELECT", WIRE_DISKS_SINCE, 0, 0, true, false, NULL},
	{WIRE_BLOCKS, "BLOCKS", WIRE_DISKS_SINCE, WIRE_SECTOR, WIRE_MAX_BLOCKS, true, false, wire_check_blocks},
	{WIRE_HOLE, "HOLE", WIRE_DISKS_SINCE, 0, 0, true, true, wire_check_hole},
	{WIRE_FLUSH, "FLUSH", WIRE_DISKS_SINCE, 0, 0, false, false, NULL},
	{WIRE_FLUSHED, "FLUSHED", WIRE_DISKS_SINCE, 0, 0, false, false, NULL},
};

static const struct type *wire_find_type(uint32_t type, uint32_t version)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (types[i].type == type)
			return types[i].since <= version ? &types[i] : NULL;
	return NULL;
}

static int wire_check_frame(const struct type *type, const struct wire_frame *frame, struct err *err)
{
	if (frame->length < type->min || frame->length > type->max)
		return err_set(err, -EPROTO, "%s of %u bytes", type->name, frame->length);
	if ((!type->a && frame->a) || (!type->b && frame->b) || (type->check && type->check(frame)))
		return err_set(err, -EPROTO, "%s with 0x%llx, 0x%llx and %u bytes", type->name,
			       (unsigned long long)frame->a, (unsigned long long)frame->b, frame->length);
	return 0;
}

/* ---- who may send what when ---- */

#define KIND(kind) (1u << (kind))
#define EVERY_KIND (KIND(WIRE_CONTROL) | KIND(WIRE_MEMORY) | KIND(WIRE_DEVICE) | KIND(WIRE_DISK))
#define STAY STATES

struct move {
	unsigned int kinds;
	enum state first, last; /* in any of these states */
	enum wire_side from;
	uint32_t type;
	enum state next; /* STAY: unchanged */
};

/*
 * The two sides' frames may cross. Those that can cross are allowed as long as they can be in flight: PROGRESS, FAILED
 * and ABORT. If the target's ABORT crosses GO, GO came too late: the target has given up and will not run the guest.
 */
static const struct move moves[] = {
	{EVERY_KIND, NEW, NEW, WIRE_SOURCE, WIRE_HELLO, GREETED},
	{EVERY_KIND, GREETED, GREETED, WIRE_TARGET, WIRE_HELLO, OPEN},
	{EVERY_KIND, NEW, GREETED, WIRE_TARGET, WIRE_REFUSED, OVER},

	{KIND(WIRE_CONTROL), OPEN, OPEN, WIRE_SOURCE, WIRE_OFFER, OFFERED},
	{KIND(WIRE_CONTROL), OFFERED, OFFERED, WIRE_TARGET, WIRE_READY, ROUNDS},
	{KIND(WIRE_CONTROL), OPEN, OFFERED, WIRE_TARGET, WIRE_REFUSED, OVER},
	{KIND(WIRE_CONTROL), ROUNDS, ROUNDS, WIRE_SOURCE, WIRE_TRIAL, TRYING},
	{KIND(WIRE_CONTROL), TRYING, TRYING, WIRE_TARGET, WIRE_TRIED, ROUNDS},
	{KIND(WIRE_CONTROL), ROUNDS, ROUNDS, WIRE_SOURCE, WIRE_STOPPED, STOPPED},
	{KIND(WIRE_CONTROL), STOPPED, STOPPED, WIRE_SOURCE, WIRE_STATE, STATED},
	{KIND(WIRE_CONTROL), STATED, STATED, WIRE_SOURCE, WIRE_END, COMPLETE},
	{KIND(WIRE_CONTROL), COMPLETE, COMPLETE, WIRE_TARGET, WIRE_LOADED, LOADED},
	{KIND(WIRE_CONTROL), LOADED, LOADED, WIRE_SOURCE, WIRE_GO, GONE},
	{KIND(WIRE_CONTROL), GONE, GONE, WIRE_TARGET, WIRE_RUNNING, OVER},
	{KIND(WIRE_CONTROL), OFFERED, GONE, WIRE_TARGET, WIRE_FAILED, OVER},
	{KIND(WIRE_CONTROL), OPEN, LOADED, WIRE_SOURCE, WIRE_ABORT, OVER},
	{KIND(WIRE_CONTROL), OPEN, GONE, WIRE_TARGET, WIRE_ABORT, OVER},
	{KIND(WIRE_CONTROL), OPEN, GONE, WIRE_SOURCE, WIRE_PROGRESS, STAY},
	{KIND(WIRE_CONTROL), OPEN, GONE, WIRE_TARGET, WIRE_PROGRESS, STAY},

	{KIND(WIRE_MEMORY), OPEN, OPEN, WIRE_SOURCE, WIRE_PAGES, STAY},
	{KIND(WIRE_MEMORY), OPEN, OPEN, WIRE_SOURCE, WIRE_ZERO, STAY},
	{KIND(WIRE_MEMORY), OPEN, OPEN, WIRE_SOURCE, WIRE_ZSTD, STAY},
	{KIND(WIRE_MEMORY), OPEN, OPEN, WIRE_SOURCE, WIRE_END, OVER},

	{KIND(WIRE_DEVICE), OPEN, OPEN, WIRE_SOURCE, WIRE_DATA, STAY},
	{KIND(WIRE_DEVICE), OPEN, OPEN, WIRE_SOURCE, WIRE_INITIAL, STAY},
	{KIND(WIRE_DEVICE), OPEN, OPEN, WIRE_TARGET, WIRE_ACK, STAY},
	{KIND(WIRE_DEVICE), OPEN, OPEN, WIRE_SOURCE, WIRE_END, OVER},

	{KIND(WIRE_DISK), OPEN, OPEN, WIRE_SOURCE, WIRE_SELECT, STAY},
	{KIND(WIRE_DISK), OPEN, OPEN, WIRE_SOURCE, WIRE_BLOCKS, STAY},
	{KIND(WIRE_DISK), OPEN, OPEN, WIRE_SOURCE, WIRE_HOLE, STAY},
	{KIND(WIRE_DISK), OPEN, OPEN, WIRE_SOURCE, WIRE_FLUSH, STAY},
	{KIND(WIRE_DISK), OPEN, OPEN, WIRE_TARGET, WIRE_FLUSHED, STAY},
	{KIND(WIRE_DISK), OPEN, OPEN, WIRE_SOURCE, WIRE_END, OVER},
};

static const struct move *wire_find_move(const struct wire_conversation *conversation, enum wire_side from,
					 uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
		const struct move *move = &moves[i];

		if (move->type == type && move->from == from && move->kinds & KIND(conversation->kind) &&
		    conversation->state >= move->first && conversation->state <= move->last)
			return move;
	}
	return NULL;
}

void wire_begin(struct wire_conversation *conversation, enum wire_kind kind)
{
	/* Frames before the HELLOs have agreed are the same in all versions. */
	*conversation = (struct wire_conversation){.kind = kind, .version = WIRE_OLDEST, .state = NEW};
}

int wire_step(struct wire_conversation *conversation, enum wire_side from, const struct wire_frame *frame,
	      struct err *err)
{
	const struct type *type = wire_find_type(frame->type, conversation->version);
	const struct move *move = wire_find_move(conversation, from, frame->type);
	int code;

	if (!type)
		return err_set(err, -EPROTO, "a frame of unknown type %u", frame->type);
	if (!move)
		return err_set(err, -EPROTO, "%s from the %s, %s of the %s channel", type->name,
			       from == WIRE_SOURCE ? "source" : "target", state_names[conversation->state],
			       wire_kind_name(conversation->kind));
	code = wire_check_frame(type, frame, err);
	if (!code && move->next != STAY)
		conversation->state = move->next;
	return code;
}

bool wire_open(const struct wire_conversation *conversation)
{
	return conversation->state >= OPEN;
}

const char *wire_type_name(uint32_t type)
{
	const struct type *found = wire_find_type(type, WIRE_VERSION);

	return found ? found->name : "?";
}

const char *wire_kind_name(enum wire_kind kind)
{
	static const char *const names[WIRE_KINDS] = {"control", "memory", "device", "disk"};

	return (unsigned int)kind < WIRE_KINDS ? names[kind] : "?";
}

/* ---- bytes ---- */

void wire_put_header(uint8_t buf[WIRE_HEADER_SIZE], const struct wire_frame *frame)
{
	put_le32(buf, frame->type);
	put_le32(buf + 4, frame->length);
	put_le64(buf + 8, frame->a);
	put_le64(buf + 16, frame->b);
}

void wire_get_header(const uint8_t buf[WIRE_HEADER_SIZE], struct wire_frame *frame)
{
	*frame = (struct wire_frame){
		.type = get_le32(buf), .length = get_le32(buf + 4), .a = get_le64(buf + 8), .b = get_le64(buf + 16)};
}

struct wire_frame wire_hello_frame(void)
{
	return (struct wire_frame){.type = WIRE_HELLO, .length = WIRE_HELLO_SIZE, .a = WIRE_MAGIC};
}

void wire_put_hello(uint8_t buf[WIRE_HELLO_SIZE], const struct wire_hello *hello)
{
	put_le32(buf, hello->version);
	put_le32(buf + 4, hello->oldest);
	memcpy(buf + 8, hello->session, WIRE_SESSION_SIZE);
	put_le32(buf + 24, hello->kind);
	put_le32(buf + 28, hello->index);
	put_le32(buf + 32, hello->count);
	put_le32(buf + 36, 0);
}

int wire_check_first(const struct wire_frame *frame, struct err *err)
{
	/* A TLS record: 22 for a handshake or 21 for an alert, then 3 and a minor version. */
	if ((frame->type & 0xffff) == 0x0316 || (frame->type & 0xffff) == 0x0315)
		return err_set(err, -EPROTO, "the peer uses TLS; use --tls on both sides");
	if (frame->type == WIRE_HELLO && frame->a == WIRE_MAGIC && frame->length == WIRE_HELLO_SIZE && !frame->b)
		return 0;
	return err_set(err, -EPROTO, "the peer does not use mvmm's migration protocol");
}

int wire_get_hello(const uint8_t buf[WIRE_HELLO_SIZE], struct wire_hello *hello, struct err *err)
{
	static const uint32_t most[WIRE_KINDS] = {1, WIRE_MAX_STREAMS, WIRE_MAX_DEVICES, 1};
	struct wire_hello got = {.version = get_le32(buf), .oldest = get_le32(buf + 4), .kind = get_le32(buf + 24),
				 .index = get_le32(buf + 28), .count = get_le32(buf + 32)};

	memcpy(got.session, buf + 8, WIRE_SESSION_SIZE);
	if (got.kind >= WIRE_KINDS || !got.count || got.count > most[got.kind] || got.index >= got.count ||
	    !got.oldest || got.oldest > got.version)
		return err_set(err, -EPROTO, "HELLO for channel %u of %u of kind %u, versions %u to %u", got.index,
			       got.count, got.kind, got.oldest, got.version);
	*hello = got;
	return 0;
}

int wire_agree(const struct wire_hello *mine, const struct wire_hello *theirs, uint32_t *version, struct err *err)
{
	uint32_t newest = MIN(mine->version, theirs->version);

	if (newest < mine->oldest || newest < theirs->oldest)
		return err_set(err, -EPROTONOSUPPORT,
			       "the peer supports versions %u to %u of the migration stream, this host %u to %u; use "
			       "an mvmm that supports a version of the other",
			       theirs->oldest, theirs->version, mine->oldest, mine->version);
	*version = newest;
	return 0;
}
