/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who wrote which page, device by device. Every device is one dirty source of the machine; the source starts the best
 * tracker that its device has (its own DMA log, else the IOMMU's page table or the type1 container) and, where there is
 * none, reports everything (while rounds follow, see core/dirty.h, not before the last one). Devices that share an IOMMU log share its start, its stop and one query.
 *
 * A log that cannot be read is lost: collect fails, and its caller takes the range for dirty or gives up.
 */
#pragma once

#include "vfio/device.h"

/* Finds out what the attached device can do and fills coverage, dma_log.supported and source. */
void vfio_tracker_init(struct vfio_device *device, bool no_device_log);

/* Moves what all devices wrote in [gpa, gpa + size) into guest memory's own log; what cannot be read counts as written.
 * For ranges about to be unmapped: the IOMMUs keep their bits, as the unmap throws them away. */
void vfio_tracker_keep(struct vfio_space *space, uint64_t gpa, uint64_t size);

/* The same for one device and all RAM, before it goes. */
void vfio_tracker_flush(struct vfio_device *device);

/*
 * How much memory will count as written in a last collect whatever devices do, in bytes: all that is mapped for one that
 * nobody tracks, and what was added after a device's own log had been started. *who is such a device, or NULL.
 */
uint64_t vfio_tracker_untold(struct vfio_space *space, const struct vfio_device **who);
