/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resets functions that have no reset of their own by their bus (VFIO_DEVICE_PCI_HOT_RESET). The kernel allows that to
 * the owner of every device on the bus. The groups' descriptors, or under iommufd the bindings, prove ownership.
 *
 * A reset of the bus affects a set of functions. The caller opens all functions that it adds together, then calls
 * vfio_pci_reset once, before the guest can use them: each set is reset once, and the functions are in use from then
 * on. A set in which one was in use already is not reset.
 */
#pragma once

#include "vfio/device.h"

/*
 * Resets the devices that have joined the space since the last call, except those that the kernel resets when they are
 * opened and closed. Logs a line for each that could not be reset; it starts as its last user left it. Fills in
 * device->reset.
 */
void vfio_pci_reset(struct vfio_space *space);
