/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that come into a finished configuration, and leave it, while its machine runs. */
#pragma once

#include "vmm/config/config.h"

#include <jansson.h>

/*
 * Adds a device of an option (without the dashes: "disk", "net" or "vfio"), written as on the command line, with an id
 * that no other device has; then it is the last of its kind. json: written as in a JSON file. -EINVAL with the message,
 * and the configuration is unchanged.
 */
int config_plug_add(struct machine_config *config, const char *option, const char *text, struct err *err);
int config_plug_add_json(struct machine_config *config, const char *option, json_t *item, struct err *err);

/* The id of the last device of an option; there is one. */
const char *config_plug_last(const struct machine_config *config, const char *option);

/* Removes the device with this id, if any, and closes the descriptor that was handed in for it. */
void config_plug_remove(struct machine_config *config, const char *id);
