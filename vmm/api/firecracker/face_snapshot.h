/* SPDX-License-Identifier: Apache-2.0 */
/* PUT /snapshot/create and /snapshot/load. Called by the table of face_paths.c. */
#pragma once

#include "vmm/api/firecracker/face.h"

face_fn face_snapshot_create, face_snapshot_load;
