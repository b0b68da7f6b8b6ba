/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state: each object with state declares its fields once, in a table for saving, loading and the fuzzer.
 *
 *	static const struct state_field fields[] = {
 *		STATE_UINT(struct serial_state, lcr, 1),
 *		STATE_BYTES(struct serial_state, fifo, 1),
 *	};
 *	const struct state_table serial_state = {
 *		.name = "serial", .version = 1, .oldest = 1, STATE_FIELDS(fields),
 *		STATE_IN(struct serial, state), STATE_LOCK(struct serial, lock), .judge = serial_judge, ...
 *	};
 *
 * Saving writes a record: the table's name, its version, and each field with its name and length, little-endian. Fields
 * are found by name, so their order is free. A field newer than the record keeps its value; a field that the table does
 * not know, or of another length, fails the load. The meaning of a name never changes: a new meaning is a new field.
 *
 * A record is hostile. Loading reads nothing beyond its end and allocates only what the table says. An object whose
 * load failed can only be destroyed.
 *
 * An object keeps what migrates in one struct (here serial->state), whose members are its registers. Saving copies this
 * struct under the object's lock, calls collect to complete the copy, and writes it. Loading copies the struct, reads
 * the record into the copy, calls judge, copies it back, and calls loaded: the object's threads, timers and lines never
 * see values that judge has not accepted.
 */
#pragma once

#include "core/err.h"

enum state_kind {
	STATE_KIND_UINT,  /* 1, 2, 4 or 8 bytes */
	STATE_KIND_BOOL,  /* one byte, 0 or 1 */
	STATE_KIND_BYTES, /* an array of bytes */
	STATE_KIND_TABLE, /* records of another table, one for each element of an array */
};

struct state_table;

struct state_field {
	const char *name;
	enum state_kind kind;
	uint32_t since; /* the table's version that added it */
	size_t offset;  /* in the struct */
	size_t size;    /* bytes; of one element for STATE_KIND_TABLE */
	size_t count;   /* elements of STATE_KIND_TABLE */
	const struct state_table *table;
	/* Only the first elements or bytes of the array are saved, as many as the uint32_t at some_at says. A record
	 * has any number up to the array's size; loading sets the uint32_t. */
	bool some;
	size_t some_at;
};

struct state_table {
	const char *name;
	uint32_t version; /* written */
	uint32_t oldest;  /* accepted */
	const struct state_field *fields;
	size_t field_count;
	/*
	 * The struct: its size, and its offset in the object (STATE_IN). apart: it is not in the object, because the
	 * kernel has the state, or it has another form (STATE_APART); the struct exists during the call and begins as
	 * zeroes. size 0: the object itself is the struct, an element of another one or made of parts that have tables;
	 * then nothing below is used.
	 */
	size_t size, at;
	bool apart;
	size_t lock; /* a pthread_mutex_t in the object, held over copies and calls; 0: the caller prevents races */
	/* All three may be NULL; 0 or -errno. */
	/* Completes the copy to be saved: values that are derived, in flight, or in the kernel. */
	int (*collect)(void *object, void *state, struct err *err);
	/* Checks whether the object can have this state; changes nothing. version is the record's. */
	int (*judge)(const void *object, const void *state, uint32_t version, struct err *err);
	/* Applies the new state, of which state is a copy, to lines, timers and the kernel. */
	int (*loaded)(void *object, const void *state, struct err *err);
};

#define STATE_FIELDS(array) .fields = (array), .field_count = ARRAY_SIZE(array)
#define STATE_IN(type, member) .size = sizeof(((type *)0)->member), .at = offsetof(type, member)
#define STATE_APART(type) .size = sizeof(type), .apart = true
#define STATE_LOCK(type, member) .lock = offsetof(type, member)

#define STATE_UINT(type, member, version) STATE_UINT_AS(#member, type, member, version)
/* _AS: with a name that is not the member's. Signed numbers are saved as their bits. */
#define STATE_UINT_AS(name, type, member, version) \
	{name, STATE_KIND_UINT, version, offsetof(type, member), sizeof(((type *)0)->member), 1, NULL, false, 0}
#define STATE_BOOL(type, member, version) STATE_BOOL_AS(#member, type, member, version)
#define STATE_BOOL_AS(name, type, member, version) \
	{name, STATE_KIND_BOOL, version, offsetof(type, member), 1, 1, NULL, false, 0}
#define STATE_BYTES(type, member, version) STATE_BYTES_AS(#member, type, member, version)
#define STATE_BYTES_AS(name, type, member, version) \
	{name, STATE_KIND_BYTES, version, offsetof(type, member), sizeof(((type *)0)->member), 1, NULL, false, 0}
#define STATE_ARRAY(type, member, version, element)                                                            \
	{#member, STATE_KIND_TABLE, version, offsetof(type, member), sizeof(((type *)0)->member[0]),           \
	 ARRAY_SIZE(((type *)0)->member), element, false, 0}
#define STATE_STRUCT(type, member, version, element) \
	{#member, STATE_KIND_TABLE, version, offsetof(type, member), sizeof(((type *)0)->member), 1, element, false, 0}
/* The first *counter bytes or elements of an array; counter is another member, a uint32_t. Bytes behind them are neither
 * saved nor copied. */
#define STATE_SOME_BYTES(type, member, version, counter)                                                          \
	{#member, STATE_KIND_BYTES, version, offsetof(type, member), sizeof(((type *)0)->member), 1, NULL, true,   \
	 offsetof(type, counter)}
#define STATE_LIST(type, member, version, counter, element)                                                       \
	{#member, STATE_KIND_TABLE, version, offsetof(type, member), sizeof(((type *)0)->member[0]),               \
	 ARRAY_SIZE(((type *)0)->member), element, true, offsetof(type, counter)}

/* A buffer that grows. All zero: empty. The owner calls state_buffer_free. */
struct state_buffer {
	uint8_t *data;
	size_t len, room;
};

int state_buffer_add(struct state_buffer *buffer, const void *data, size_t len);
void state_buffer_free(struct state_buffer *buffer);

/* Appends object's record to out. -ENOMEM, or collect's error; out is then unchanged. */
int state_save(const struct state_table *table, void *object, struct state_buffer *out, struct err *err);

/* Loads the record [data, data + len) into object. -EBADMSG: the record is invalid; or the error of judge or loaded. */
int state_load(const struct state_table *table, void *object, const void *data, size_t len, struct err *err);

/* The same for the record at the front of [*data, *data + *len), for several records in a row. Success moves both
 * behind it. */
int state_load_first(const struct state_table *table, void *object, const uint8_t **data, size_t *len, struct err *err);
