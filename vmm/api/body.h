/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of requests by tables: a JSON object is read into a structure whose members the table names, and written from
 * it. Types, limits, defaults, what must be there and what may not, and the texts that say so, follow from the table; the
 * texts are those of serde (Rust), which clients of other programs know. Used by the faces.
 *
 * A structure begins with a body_set, whose bit i tells that the i-th member was given.
 */
#pragma once

#include "core/err.h"

#include <jansson.h>

typedef uint64_t body_set;

enum body_kind {
	BODY_BOOL,   /* bool */
	BODY_UINT,   /* uint64_t, 0 to max, which is that of an unsigned type */
	BODY_TEXT,   /* char *, owned by the structure */
	BODY_WORD,   /* unsigned int: an index of words */
	BODY_OBJECT, /* a structure of object, in this one */
	BODY_LIST,   /* struct body_list: structures of object */
};

#define BODY_MAX_ITEMS 64u
struct body_list {
	void *items;
	size_t count;
};

struct body_member {
	const char *name;
	enum body_kind kind;
	size_t offset;
	uint64_t value; /* the default */
	uint64_t max;
	const char *const *words; /* ends with NULL */
	const struct body *object;
	bool needed;
	bool nullable; /* null is the same as nothing, and nothing is written as null; else a default is written */
	bool hidden;   /* nothing is not written */
	bool any_case; /* of a word */
};

struct body {
	const char *name; /* "MachineConfig" */
	const struct body_member *members;
	size_t count; /* at most 64 */
	size_t size;  /* of the structure, if it is an item of lists */
	bool lax;     /* unknown members are ignored */
};

/* Sets defaults, without freeing anything. */
void body_init(const struct body *body, void *target);
/* Frees the texts and sets the defaults. */
void body_done(const struct body *body, void *target);

/* Reads into an initialized target. -EINVAL with the text for the client; the target then has what came before. */
int body_read(const struct body *body, const json_t *root, void *target, struct err *err);
/* The same of a text, which need not end with a zero byte. */
int body_read_text(const struct body *body, const char *text, size_t len, void *target, struct err *err);

/* The structure as an object, the caller's; NULL: no memory. */
json_t *body_write(const struct body *body, const void *target);

/* Takes what `from` has over into `to`, of the same table: texts are moved, members that are not given stay. */
void body_update(const struct body *body, void *to, void *from);
