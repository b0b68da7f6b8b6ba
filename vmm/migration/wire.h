/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The migration stream's frames, as docs/migration-stream.md tells them: how they look, how large they may be, and which
 * may come when. Nothing here reads or writes a descriptor; channel.c does, the memory sender and receiver do, and the
 * tests and the fuzzer feed it nonsense.
 *
 * Both ends step through the same table with everything they send and receive, so that an order that is wrong is found
 * before a payload is looked at, and by the side that made the mistake as well.
 */
#pragma once

#include "core/err.h"

/* Versions of the stream: what is spoken, and the oldest that is still understood. */
#define WIRE_VERSION 2u
#define WIRE_OLDEST 1u

#define WIRE_MAGIC 0x7267696d6d6d766dull /* "mvmmmigr" */
#define WIRE_HEADER_SIZE 24u
#define WIRE_HELLO_SIZE 40u
#define WIRE_SESSION_SIZE 16u

#define WIRE_PAGE 4096u
#define WIRE_CHUNK MIB(2)        /* of guest addresses: a chunk's pages all travel on one memory channel, and no frame crosses it */
#define WIRE_MAX_ZSTD KIB(256)   /* guest bytes in one compressed frame */
#define WIRE_MAX_TEXT 511u       /* a sentence; what struct err holds */
#define WIRE_MAX_OFFER MIB(1)    /* OFFER, READY and RUNNING */
#define WIRE_MAX_STATE MIB(64)   /* one STATE */
#define WIRE_MAX_DATA MIB(1)     /* one DATA of a device */
#define WIRE_MAX_STREAMS 64u     /* memory channels */
#define WIRE_MAX_DEVICES 64u     /* device channels */
#define WIRE_TRIALS_SINCE 2u     /* the version in which the switch-over is rehearsed */
#define WIRE_DISKS_SINCE 2u      /* the version that has disk channels */
#define WIRE_MAX_DISKS 32u       /* disks whose content goes along */
#define WIRE_SECTOR 512u         /* what disks are made of */
#define WIRE_MAX_BLOCKS MIB(1)   /* bytes in one BLOCKS */
#define WIRE_MAX_HOLE MIB(64)    /* bytes of one HOLE, which may have to be written */

enum wire_side { WIRE_SOURCE, WIRE_TARGET };
enum wire_kind { WIRE_CONTROL, WIRE_MEMORY, WIRE_DEVICE, WIRE_DISK, WIRE_KINDS };

enum wire_type {
	/* every channel */
	WIRE_HELLO = 1,
	WIRE_REFUSED = 2, /* target: text */
	WIRE_END = 3,     /* source: that was all; a and b are the channel's totals */
	/* control */
	WIRE_OFFER = 16,   /* source: JSON */
	WIRE_READY = 17,   /* target: JSON */
	WIRE_STOPPED = 18, /* source: the guest stands; a: ns that it has stood */
	WIRE_STATE = 19,   /* source: the machine's saved state */
	WIRE_LOADED = 20,  /* target: all there, loaded and checked; a: ns that loading took */
	WIRE_GO = 21,      /* source: it is yours */
	WIRE_RUNNING = 22, /* target: JSON; a: ns from GO until the guest ran */
	WIRE_FAILED = 23,  /* target: text; the guest does not run here and never will */
	WIRE_ABORT = 24,   /* either: text */
	WIRE_PROGRESS = 25, /* either: I live */
	WIRE_TRIAL = 26,    /* source: a state as the one that will come, to be loaded for practice */
	WIRE_TRIED = 27,    /* target: a: ns that it took */
	/* memory */
	WIRE_PAGES = 32, /* a: guest address; the payload is the pages */
	WIRE_ZERO = 33,  /* a: guest address, b: bytes; they are zero */
	WIRE_ZSTD = 34,  /* a: guest address, b: bytes; the payload is one zstd frame */
	/* a device */
	WIRE_DATA = 48,    /* a: where in the device's stream; the payload goes there */
	WIRE_INITIAL = 49, /* source: what comes before a, the device wants loaded before it switches over */
	WIRE_ACK = 50,     /* target: the data before a is loaded */
	/* disks, since version 2 */
	WIRE_SELECT = 64,  /* source: what follows is about disk a */
	WIRE_BLOCKS = 65,  /* source: the payload goes to offset a */
	WIRE_HOLE = 66,    /* source: b bytes from offset a on are zero */
	WIRE_FLUSH = 67,   /* source: let all that came be on stable storage */
	WIRE_FLUSHED = 68, /* target: it is */
};

/* A frame's header. On the wire: type, length, a, b; little-endian, 24 bytes. */
struct wire_frame {
	uint32_t type;
	uint32_t length; /* bytes of payload that follow */
	uint64_t a, b;
};

/* What a channel opens with, both ways. */
struct wire_hello {
	uint32_t version, oldest;
	uint8_t session[WIRE_SESSION_SIZE];
	uint32_t kind;  /* enum wire_kind */
	uint32_t index; /* below count */
	uint32_t count; /* channels of that kind in the session */
};

/* Where the conversation on one channel stands. */
struct wire_conversation {
	enum wire_kind kind;
	uint32_t version; /* agreed on; set by wire_agree's caller */
	unsigned int state;
};

void wire_begin(struct wire_conversation *conversation, enum wire_kind kind);

/*
 * Takes one step: frame is what `from` sends next. -EPROTO with a sentence when its type is unknown in this version, comes
 * in the wrong place or carries a length or an address that the type does not allow; the conversation is then as it was. After 0
 * the payload may be read: length is within the type's bounds.
 */
int wire_step(struct wire_conversation *conversation, enum wire_side from, const struct wire_frame *frame, struct err *err);

/* Both HELLOs have been said. */
bool wire_open(const struct wire_conversation *conversation);

/* "OFFER", or "?". */
const char *wire_type_name(uint32_t type);
const char *wire_kind_name(enum wire_kind kind);

void wire_put_header(uint8_t buf[WIRE_HEADER_SIZE], const struct wire_frame *frame);
void wire_get_header(const uint8_t buf[WIRE_HEADER_SIZE], struct wire_frame *frame);

/* The header that a HELLO has, and its payload. */
struct wire_frame wire_hello_frame(void);
void wire_put_hello(uint8_t buf[WIRE_HELLO_SIZE], const struct wire_hello *hello);

/*
 * Checks the header of a connection's first frame: -EPROTO with a sentence that tells a TLS peer, a stranger and a stream
 * gone wrong apart.
 */
int wire_check_first(const struct wire_frame *frame, struct err *err);

/* Decodes a HELLO's payload; -EPROTO when its numbers make no sense. Versions are left to wire_agree. */
int wire_get_hello(const uint8_t buf[WIRE_HELLO_SIZE], struct wire_hello *hello, struct err *err);

/* The newest version that both understand into *version; -EPROTONOSUPPORT with a sentence naming both sides' versions. */
int wire_agree(const struct wire_hello *mine, const struct wire_hello *theirs, uint32_t *version, struct err *err);
