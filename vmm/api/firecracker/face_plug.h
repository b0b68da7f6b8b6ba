/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PUT and DELETE of drives and network interfaces while the machine runs, with --enable-pci: the guest has to look for
 * them itself. Called by the table of face_paths.c.
 */
#pragma once

#include "vmm/api/firecracker/face.h"

/* PUT: before the start as face_before.c has it. */
face_fn face_plug_drive, face_plug_net, face_plug_remove_drive, face_plug_remove_net;
