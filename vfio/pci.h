/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host's PCI function on the guest's bus: makes a device that vfio/device.c has opened a pci_function with the
 * device's own config space, its BARs mapped into the guest where possible, and its interrupts delivered without this
 * process.
 */
#pragma once

#include "core/state.h"
#include "vfio/device.h"
#include "vfio/pci_machine.h"

/*
 * Puts the device on the bus and takes it over on success. -EINVAL with the reason if it cannot be passed through (a
 * bridge). On failure nothing is left, and the device is still the caller's.
 */
int vfio_pci_create(struct vfio_device **device, const struct vfio_pci_options *options,
		    const struct vfio_pci_machine *machine, struct vfio_pci **ret, struct err *err);
/*
 * Ends the device's DMA: what it has written arrives before this returns. For a function that will be destroyed, before
 * memory that it or another device can reach is unmapped. While no vCPU runs.
 */
void vfio_pci_stop_dma(struct vfio_pci *pci);
/*
 * Ends the DMA, disables the interrupts, removes the function from the bus and frees it. The device is the caller's
 * again, who closes it (vfio_device_close). On the event loop's thread, while no vCPU runs. NULL gives NULL.
 */
struct vfio_device *vfio_pci_remove(struct vfio_pci *pci);

/* Cuts off a device that the guest cannot use any more: the guest reads ones, its writes have no effect, and the device
 * has neither interrupts nor DMA. On the event loop's thread. */
void vfio_pci_cut_off(struct vfio_pci *pci);

/* Information for the user. */
struct vfio_pci_info {
	const char *id;
	const struct vfio_device *device;
	uint8_t devfn;
	uint16_t vendor, product;
	const char *interrupts;   /* "none", "INTx", "MSI", "MSI-X" */
	unsigned int vectors;     /* in use */
	unsigned int mapped_bars; /* bit n: BAR n is mapped into the guest now, at least in part */
	const char *reset;        /* "function", "bus", "none"; NULL: not yet (pci_reset.h) */
	bool fenced;
};
void vfio_pci_get_info(struct vfio_pci *pci, struct vfio_pci_info *info);

/*
 * ---- pci_state.c: the saved state of the function, without the device state ----
 *
 * The emulated config space, the addresses of the BARs, MSI and MSI-X as the guest has programmed them, and interrupts
 * pending in a masked vector. vfio/migration.h migrates the device state. On the event loop's thread, while no vCPU
 * runs.
 */

/* Appends the state to out. The device is stopped and signals no vector any more. -EIO: it has been fenced. */
int vfio_pci_save(struct vfio_pci *pci, struct state_buffer *out, struct err *err);
/*
 * Loads the state into a new function in the same slot, after the device has loaded its own (vfio_migration_loaded):
 * maps the BARs where the guest had them, sets up the interrupts, and only then enables bus mastering if it was
 * enabled. -EBADMSG: the state is invalid or of another kind of device; -EIO: the host does not give as many
 * interrupts. After a failure the function can only be destroyed.
 */
int vfio_pci_load(struct vfio_pci *pci, const void *data, size_t len, struct err *err);
/*
 * After a load, when the device runs and before the vCPUs do: raises each unmasked message and the line once, in case
 * one was on its way from the eventfd to a vCPU on the source. KVM raises a line on a thread of its own, possibly after
 * the interrupt controllers were saved.
 */
void vfio_pci_kick(struct vfio_pci *pci);
