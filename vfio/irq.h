/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VFIO_DEVICE_GET_IRQ_INFO and VFIO_DEVICE_SET_IRQS: one function for each operation on a device's interrupts. No
 * policy. 0 or -errno, no text.
 */
#pragma once

#include "vfio/device.h"

struct vfio_irq {
	uint32_t flags; /* VFIO_IRQ_INFO_* */
	uint32_t count; /* 0: the device has no such interrupt */
};

/* ret->count is 0 for an index that the device does not have. */
void vfio_irq_get(const struct vfio_device *device, uint32_t index, struct vfio_irq *ret);

/*
 * Makes interrupts [start, start + count) of the index signal fds (-1: none). Enables the index if it was disabled. A
 * positive result for MSI is the number of vectors that are available.
 */
int vfio_irq_trigger(const struct vfio_device *device, uint32_t index, uint32_t start, uint32_t count, const int *fds);
/* Disables the index as a whole. */
int vfio_irq_disable(const struct vfio_device *device, uint32_t index);
/* Unmasks an automasked interrupt, now or whenever fd is signalled. */
int vfio_irq_unmask(const struct vfio_device *device, uint32_t index);
int vfio_irq_unmask_by(const struct vfio_device *device, uint32_t index, int fd);
