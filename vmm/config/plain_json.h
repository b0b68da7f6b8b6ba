/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the JSON that mvmm itself writes in half of jansson's time, which takes every character by some calls: a restore
 * reads 3 KB of it.
 */
#pragma once

#include <jansson.h>

/*
 * What json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL) gives, or NULL: then that must be asked, for there is something
 * in it that is rare (an escape, a character that is not ASCII, a number that is not a plain integer, white space), it
 * is invalid, or there is no memory. The text is hostile.
 */
json_t *plain_json_read(const char *text, size_t len);
