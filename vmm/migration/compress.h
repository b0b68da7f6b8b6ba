/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd. One object for each thread. Level 1: higher levels cost more CPU than they save on the network.
 */
#pragma once

#include "core/err.h"

struct compressor;

/* -ENOMEM. */
int compressor_create(struct compressor **ret, struct err *err);
void compressor_destroy(struct compressor *compressor); /* NULL is fine */

/*
 * Packs [from, from + len) into one frame of at most room bytes. Its size, or 0: it does not fit. from must not change.
 */
size_t compressor_pack(struct compressor *compressor, const void *from, size_t len, void *to, size_t room);

/*
 * Decompresses the frame [from, from + len), whose content must be exactly room bytes. The input is hostile: nothing
 * outside of `to` is written, and no memory beyond the object's is used. -EBADMSG.
 */
int compressor_unpack(struct compressor *compressor, const void *from, size_t len, void *to, size_t room);
