/* SPDX-License-Identifier: Apache-2.0 */
/* Which request is which: paths, methods, bodies and when they may come, as a table. Called by firecracker.c. */
#pragma once

#include "vmm/api/firecracker/face.h"

/* Makes the counters of the table. */
void face_paths_init(struct face *face);
/* Handles a request and replies to it, now or later. */
void face_paths_serve(struct face *face, struct http_call *call, const struct http_request *request);
