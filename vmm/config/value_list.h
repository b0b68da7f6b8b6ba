/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON values as a flat list of typed entries: what a stage (vmm/jail/stage.h) answers when it has parsed a text. The
 * reader is short and does not trust the writer. Everything is little-endian; an entry is a type, a length and bytes:
 *
 *	'o', u32 members   then for each one a key, as a text is, and a value
 *	'a', u32 items     then the values
 *	's', u32 bytes     then the text, UTF-8 without a NUL
 *	'i', u32 8, i64    'r', u32 8, a double    't', 'f', 'n', u32 0
 */
#pragma once

#include "core/err.h"
#include "core/state.h"

#include <jansson.h>

#define VALUE_LIST_DEPTH 32u
#define VALUE_LIST_KEY 255u     /* bytes of a member's name */
#define VALUE_LIST_MEMBERS 1024u /* of one object */
#define VALUE_LIST_VALUES 65536u /* all of them */

/* Appends root. -EBADMSG: more of something than the reader takes; -ENOMEM. */
int value_list_write(const json_t *root, struct state_buffer *out, struct err *err);

/* The value that the whole list says (json_decref). -EBADMSG: anything else than one list; -ENOMEM. The bytes are hostile. */
int value_list_read(const void *data, size_t len, json_t **ret, struct err *err);
