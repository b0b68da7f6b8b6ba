/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices have counted since the last line of metrics, in Firecracker's words: "block" and "net" for all of them,
 * "block_ID" and "net_ID" for each. Called by face_metrics.c.
 */
#pragma once

#include "vmm/api/firecracker/face.h"

/* Adds to a count in a group of a line. */
void face_counts_sum(json_t *line, const char *group, const char *leaf, json_int_t value);

/* Adds those of devices to a line. Without a machine: nothing. */
void face_counts_add(struct face *face, json_t *line);
