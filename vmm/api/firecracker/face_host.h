/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /device-passthrough: host devices, as the branch feature/vfio of Firecracker puts them before the start; with --enable-pci,
 * also while the machine runs. Called by the table of face_paths.c and by face_full.c.
 */
#pragma once

#include "vmm/api/firecracker/face.h"

face_fn face_host_put, face_host_remove;
