/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firecracker's metrics: a JSON object a line, each minute, on FlushMetrics and at the end, in the file that was put. The
 * counters are of what happened since the last line. Called by face_before.c, face_after.c and firecracker.c.
 */
#pragma once

#include "vmm/api/firecracker/face.h"

struct face_metrics;

int face_metrics_create(struct face *face, const char *path, struct face_metrics **ret, struct err *err);
/* Writes a line now. metrics NULL: nothing; no file was put. */
int face_metrics_write(struct face_metrics *metrics, struct err *err);
/* After a last line. NULL is fine. */
void face_metrics_destroy(struct face_metrics *metrics);
