/* SPDX-License-Identifier: Apache-2.0 */
/* All of the configuration as one object. Called by the table of face_paths.c and by firecracker.c. */
#pragma once

#include "vmm/api/firecracker/face.h"

/* GET /vm/config */
face_fn face_full_get;

#define FACE_MAX_FILE MIB(1)
/* The configuration file: puts what it has, in the order in which clients put it. The machine does not start yet. */
int face_full_load(struct face *face, const char *path, struct err *err);
