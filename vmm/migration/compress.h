/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd, loaded when it is first wanted: a program that does not compress does not pay for it when it starts. One object a
 * thread. Level 1: what a network gains by more is less than what the CPU loses.
 */
#pragma once

#include "core/err.h"

struct compressor;

/* -ENOPKG with the name of the Debian package when there is none. */
int compressor_create(struct compressor **ret, struct err *err);
void compressor_destroy(struct compressor *compressor); /* NULL is fine */

/* One frame of [from, from + len) into at most room bytes: its size, or 0 when it does not fit. from must not change. */
size_t compressor_pack(struct compressor *compressor, const void *from, size_t len, void *to, size_t room);

/*
 * The content of the frame that is all of [from, from + len), which must be exactly room bytes. Hostile: writes nowhere
 * else, and needs no more memory than the object has. -EBADMSG.
 */
int compressor_unpack(struct compressor *compressor, const void *from, size_t len, void *to, size_t room);
