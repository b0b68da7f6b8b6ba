/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table's options from a JSON file, and back: an object whose members are the options (without dashes) and whose values are
 * text, numbers, true and false, or an object of the option's keys; a repeatable option takes an array of those. The
 * schema is told in the man page, the words are those of the table, and nothing else is taken: an unknown or doubled member
 * is refused with its place and the nearest known one.
 */
#pragma once

#include "core/err.h"
#include "vmm/config/options.h"

#include <jansson.h>

#define CONFIG_FILE_MAX MIB(1)

/*
 * Reads the file into the target, over what is there; -EINVAL (or what opening it gave) with the sentence for the user.
 * A file that is not a plain file or larger than CONFIG_FILE_MAX is refused.
 */
int config_json_load(const struct option_table *table, void *target, const char *path, struct err *err);

/* The same from memory. */
int config_json_parse(const struct option_table *table, void *target, const char *text, size_t len, struct err *err);

/* The same from an object that was parsed. */
int config_json_read(const struct option_table *table, void *target, const json_t *root, struct err *err);

/*
 * The way back: the target's options as an object that config_json_read takes for the same ones. What belongs on the command
 * line, what is left open (no text, no address, a number below the least that may be written) and descriptors, which
 * mean nothing to anybody else, are left out. -EINVAL for a text that is not UTF-8, -ENOMEM.
 */
int config_json_write(const struct option_table *table, const void *target, json_t **ret, struct err *err);
