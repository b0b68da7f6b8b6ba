/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods of io.mvmm.Machine for devices that come, go and change while the guest runs: of the type control_fn, opaque
 * is a struct operated. Rows of the table in control_machine.c, which has their definition.
 */
#pragma once

#include "vmm/control/control.h"

control_fn control_devices_add, control_devices_add_disk, control_devices_add_net, control_devices_remove,
	control_devices_remove_disk, control_devices_remove_net, control_devices_replace_disk, control_devices_resize_disk,
	control_devices_set_link;
