/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the options of a table from JSON, and writes them as JSON: an object whose members are the options (without
 * dashes). A value is a text, a number, true, false, or an object with the option's keys; a repeatable option takes an
 * array of those. The man page describes the schema. An unknown or duplicate member is an error, which names its place
 * and the nearest known member.
 */
#pragma once

#include "core/err.h"
#include "vmm/config/options.h"

#include <jansson.h>

#define CONFIG_FILE_MAX MIB(1)

/*
 * Reads the file into the target and replaces what the target has. -EINVAL or the error of open(), with the message for
 * the user; also if it is not a regular file or larger than CONFIG_FILE_MAX.
 */
int config_json_load(const struct option_table *table, void *target, const char *path, struct err *err);

/* The same from memory. */
int config_json_parse(const struct option_table *table, void *target, const char *text, size_t len, struct err *err);

/* The same from a parsed object. */
int config_json_read(const struct option_table *table, void *target, const json_t *root, struct err *err);

/*
 * Writes the target's options as an object from which config_json_read reads the same options. It omits command line
 * options, values that are not set (no text, no address, a number below the minimum), and descriptors, which are valid
 * in this process only. -EINVAL for a text that is not UTF-8, -ENOMEM.
 */
int config_json_write(const struct option_table *table, const void *target, json_t **ret, struct err *err);

/* Adds the limits of the device with this id to object, as their keys' texts. config_limits.c */
struct machine_config;
void machine_config_print_limits(const struct machine_config *config, const char *id, json_t *object);
