/* SPDX-License-Identifier: Apache-2.0 */
/* What Firecracker does not have, on the same server. Called by the table of face_paths.c. */
#pragma once

#include "vmm/api/firecracker/face.h"

/* GET /metrics: all metrics in Prometheus' text format. GET /events: what happens, a JSON object a line, for good. */
face_fn face_extra_metrics, face_extra_events;
