/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices have counted since the last line of metrics, in Firecracker's words: "block" and "net" for all of them,
 * "block_ID" and "net_ID" for each. Called by face_metrics.c.
 */
#pragma once

#include "vmm/api/firecracker/face.h"

/* Adds them to a line. Without a machine: nothing. */
void face_counts_add(struct face *face, json_t *line);
