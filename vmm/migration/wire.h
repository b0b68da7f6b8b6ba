/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of the migration stream (docs/migration-stream.md): their layout, their limits, and which may come when.
 * This file does no I/O; channel.c and the memory sender and receiver do, and tests and fuzzer call it with nonsense.
 *
 * Both ends step through the same table with everything that they send and receive. A frame out of order is thus found
 * before its payload is read, and also by the side that sends it.
 */
#pragma once

#include "core/err.h"

/* Version of the stream, and the oldest version that is supported. */
#define WIRE_VERSION 2u
#define WIRE_OLDEST 1u

#define WIRE_MAGIC 0x7267696d6d6d766dull /* "mvmmmigr" */
#define WIRE_HEADER_SIZE 24u
#define WIRE_HELLO_SIZE 40u
#define WIRE_SESSION_SIZE 16u

#define WIRE_PAGE 4096u
#define WIRE_CHUNK MIB(2)        /* of guest addresses: a chunk uses one memory channel, and no frame crosses its end */
#define WIRE_MAX_ZSTD KIB(256)   /* guest bytes in one compressed frame */
#define WIRE_MAX_TEXT 511u       /* a message; the size of struct err */
#define WIRE_MAX_OFFER MIB(1)    /* OFFER, READY and RUNNING */
#define WIRE_MAX_STATE MIB(64)   /* one STATE */
#define WIRE_MAX_DATA MIB(1)     /* one DATA of a device */
#define WIRE_MAX_STREAMS 64u     /* memory channels */
#define WIRE_MAX_DEVICES 64u     /* device channels */
#define WIRE_TRIALS_SINCE 2u     /* the first version with a rehearsal of the switchover */
#define WIRE_DISKS_SINCE 2u      /* the first version with disk channels */
#define WIRE_MAX_DISKS 32u       /* disks to copy */
#define WIRE_SECTOR 512u         /* unit of disk sizes and offsets */
#define WIRE_MAX_BLOCKS MIB(1)   /* bytes in one BLOCKS */
#define WIRE_MAX_HOLE MIB(64)    /* bytes of one HOLE; the target may have to write them */

enum wire_side { WIRE_SOURCE, WIRE_TARGET };
enum wire_kind { WIRE_CONTROL, WIRE_MEMORY, WIRE_DEVICE, WIRE_DISK, WIRE_KINDS };

enum wire_type {
	/* every channel */
	WIRE_HELLO = 1,
	WIRE_REFUSED = 2, /* target: text */
	WIRE_END = 3,     /* source: end of the channel; a and b are its totals */
	/* control */
	WIRE_OFFER = 16,   /* source: JSON */
	WIRE_READY = 17,   /* target: JSON */
	WIRE_STOPPED = 18, /* source: the guest is paused; a: ns since then */
	WIRE_STATE = 19,   /* source: the machine's saved state */
	WIRE_LOADED = 20,  /* target: everything is loaded and checked; a: ns that loading took */
	WIRE_GO = 21,      /* source: run the guest */
	WIRE_RUNNING = 22, /* target: JSON; a: ns from GO until the guest ran */
	WIRE_FAILED = 23,  /* target: text; the guest does not run here and never will */
	WIRE_ABORT = 24,   /* either: text */
	WIRE_PROGRESS = 25, /* either: keep-alive */
	WIRE_TRIAL = 26,    /* source: a state for the rehearsal */
	WIRE_TRIED = 27,    /* target: a: ns that loading it took */
	/* memory */
	WIRE_PAGES = 32, /* a: guest address; the payload is the pages */
	WIRE_ZERO = 33,  /* a: guest address, b: bytes of zeros */
	WIRE_ZSTD = 34,  /* a: guest address, b: bytes; the payload is one zstd frame */
	/* a device */
	WIRE_DATA = 48,    /* a: offset of the payload in the device's stream */
	WIRE_INITIAL = 49, /* source: the target must load the data before a, before the device can stop */
	WIRE_ACK = 50,     /* target: the data before a is loaded */
	/* disks, since version 2 */
	WIRE_SELECT = 64,  /* source: the following frames are about disk a */
	WIRE_BLOCKS = 65,  /* source: a: offset of the payload */
	WIRE_HOLE = 66,    /* source: b bytes at offset a are zero */
	WIRE_FLUSH = 67,   /* source: put all received data on stable storage */
	WIRE_FLUSHED = 68, /* target: done */
};

/* A frame's header. On the wire: type, length, a, b; little-endian, 24 bytes. */
struct wire_frame {
	uint32_t type;
	uint32_t length; /* bytes of payload that follow */
	uint64_t a, b;
};

/* The first frame of a channel, in both directions. */
struct wire_hello {
	uint32_t version, oldest;
	uint8_t session[WIRE_SESSION_SIZE];
	uint32_t kind;  /* enum wire_kind */
	uint32_t index; /* below count */
	uint32_t count; /* channels of that kind in the session */
};

/* The state of the conversation on one channel. */
struct wire_conversation {
	enum wire_kind kind;
	uint32_t version; /* set by wire_agree's caller */
	unsigned int state;
};

void wire_begin(struct wire_conversation *conversation, enum wire_kind kind);

/*
 * Checks frame as the next one that `from` sends and takes the step. -EPROTO with a message if its type is unknown in
 * this version, comes at the wrong time, or has a length or address that the type does not allow; the conversation is
 * then unchanged. After 0 the payload may be read: its length is within the type's limits.
 */
int wire_step(struct wire_conversation *conversation, enum wire_side from, const struct wire_frame *frame, struct err *err);

/* Whether both HELLOs have been exchanged. */
bool wire_open(const struct wire_conversation *conversation);

/* "OFFER", or "?". */
const char *wire_type_name(uint32_t type);
const char *wire_kind_name(enum wire_kind kind);

void wire_put_header(uint8_t buf[WIRE_HEADER_SIZE], const struct wire_frame *frame);
void wire_get_header(const uint8_t buf[WIRE_HEADER_SIZE], struct wire_frame *frame);

/* The header of HELLO, and its payload. */
struct wire_frame wire_hello_frame(void);
void wire_put_hello(uint8_t buf[WIRE_HELLO_SIZE], const struct wire_hello *hello);

/*
 * Checks the header of a connection's first frame: -EPROTO with a message that distinguishes a TLS peer, an unrelated
 * program and a broken stream.
 */
int wire_check_first(const struct wire_frame *frame, struct err *err);

/* Decodes a HELLO's payload; -EPROTO if its numbers are invalid. wire_agree checks the versions. */
int wire_get_hello(const uint8_t buf[WIRE_HELLO_SIZE], struct wire_hello *hello, struct err *err);

/* *version: the newest that both sides support; -EPROTONOSUPPORT with a message that names both sides' versions. */
int wire_agree(const struct wire_hello *mine, const struct wire_hello *theirs, uint32_t *version, struct err *err);
