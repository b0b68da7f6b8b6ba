/* SPDX-License-Identifier: Apache-2.0 */
/* What clients have put, as the configuration that everybody else uses. Called by face_before.c at InstanceStart. */
#pragma once

#include "vmm/api/firecracker/face.h"
#include "vmm/machine/start_request.h"

/*
 * Fills in an initialized request: its configuration, and duplicates of the files that were opened for it. The caller frees
 * both (start_request_done). Nothing of the face changes.
 */
int face_config_make(const struct face *face, struct start_request *request, struct err *err);
