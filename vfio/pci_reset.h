/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reset of functions that have none of their own: by their bus (VFIO_DEVICE_PCI_HOT_RESET), which the kernel allows
 * to whoever holds every device there. Ownership is shown by the groups' descriptors, or under iommufd by the bindings.
 *
 * A reset of the bus touches a set of functions, the one that asks and its siblings. Who plugs functions in opens all
 * that come together and then calls vfio_pci_reset once, before the guest can use them: each set among them is reset
 * once, and all that have come are at work from then on. A set in which one was at work already is not reset.
 */
#pragma once

#include "vfio/device.h"

/*
 * Resets the devices of the space that have come since the last call, those excepted that the kernel resets by
 * themselves when they are opened and closed. Where there is no way a line for each says so; it then begins as its last
 * user left it. Fills in device->reset.
 */
void vfio_pci_reset(struct vfio_space *space);
