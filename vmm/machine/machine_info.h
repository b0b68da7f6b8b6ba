/* SPDX-License-Identifier: Apache-2.0 */
/* What `mvmm info` shows of a running machine: its devices and its balloon. */
#pragma once

#include "vmm/machine/machine.h"

#include <jansson.h>

/* Adds "devices" (id, kind, slot, active) and, with a balloon, "balloon" (bytes) to info. -ENOMEM. */
int machine_info(struct machine *machine, json_t *info, struct err *err);

/* The kind of device, in the words of the options: "disk", "net". */
struct virtio_device;
const char *machine_info_kind(const struct virtio_device *device);
