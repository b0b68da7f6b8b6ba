/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that fill in the configuration, and InstanceStart. Called by the table of face_paths.c and by face_full.c. */
#pragma once

#include "vmm/api/firecracker/face.h"

face_fn face_before_machine, face_before_update_machine, face_before_boot, face_before_drive, face_before_net,
	face_before_vsock, face_before_balloon, face_before_entropy, face_before_serial, face_before_logger,
	face_before_metrics, face_before_start;

/* What must be right of a device whenever it comes. */
int face_before_check_drive(const struct face *face, const struct fc_drive *drive, struct err *err);
/* An open tap: it has this name. */
int face_before_check_tap(int fd, const char *name, struct err *err);
int face_before_check_net(const struct face *face, const struct fc_net *net, struct err *err);
