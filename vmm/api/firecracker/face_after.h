/* SPDX-License-Identifier: Apache-2.0 */
/* Requests on a running machine, and questions. Called by the table of face_paths.c. */
#pragma once

#include "vmm/api/firecracker/face.h"

face_fn face_after_instance, face_after_version, face_after_machine, face_after_balloon, face_after_statistics,
	face_after_vm, face_after_drive, face_after_net, face_after_set_balloon, face_after_flush, face_after_keys;
