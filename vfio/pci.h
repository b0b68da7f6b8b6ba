/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host's PCI function on the guest's bus: what vfio/device.c has opened becomes a pci_function with the device's own
 * config space, BARs mapped into the guest as far as they can be, and its interrupts delivered without this process.
 */
#pragma once

#include "core/state.h"
#include "vfio/device.h"
#include "vfio/pci_machine.h"

struct vfio_pci_options {
	const char *id; /* names it to people; kept, not copied */
	bool rom;       /* show the expansion ROM */
	const char *rom_file; /* in place of the device's own, or NULL */
	int devfn;      /* or -1: the first free device */
};

/*
 * Puts the device, which is consumed on success, on the bus. -EINVAL for what cannot be passed through (a bridge), with
 * the reason. On failure nothing is left but the device, which is the caller's still.
 */
int vfio_pci_create(struct vfio_device **device, const struct vfio_pci_options *options,
		    const struct vfio_pci_machine *machine, struct vfio_pci **ret, struct err *err);
/* Off the bus, interrupts off, closed. The event loop's thread, while no vCPU runs; NULL is fine. */
void vfio_pci_destroy(struct vfio_pci *pci);

/* Nothing of the guest reaches the device any more, and nothing of it the guest, which reads ones: when it is of no more
 * use to it. The event loop's thread. */
void vfio_pci_cut_off(struct vfio_pci *pci);

/* For those who tell people: what it is and how it runs. */
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
 * ---- pci_state.c: what this process holds of the function while its device moves to another host ----
 *
 * Config space as far as it is emulated, where the BARs are, MSI and MSI-X as the guest has programmed them, and interrupts
 * that wait in a masked vector. What is in the device itself the device gives (vfio/migration.h). No vCPU runs meanwhile;
 * the event loop's thread.
 */

/* Appends it to out, when the device has been stopped and kicks no vector any more. -EIO: it has been fenced. */
int vfio_pci_save(struct vfio_pci *pci, struct state_buffer *out, struct err *err);
/*
 * Into a function that has come onto the bus in the same slot and has not been touched, when the device has taken over
 * its own state (vfio_migration_loaded): BARs are mapped where the guest had them, the device interrupts by the vectors
 * that were in use, and only then masters the bus if it did. -EBADMSG for nonsense or another make of device; -EIO when
 * the host does not give as many interrupts. After a failure it is only good for being destroyed.
 */
int vfio_pci_load(struct vfio_pci *pci, const void *data, size_t len, struct err *err);
/*
 * Behind a load, when the device runs and before the vCPUs do: each message that can be delivered is, once, and so is the
 * line, in case they were on their way between eventfd and vCPU on the other host. KVM raises a line on a thread of its
 * own, which may come after the interrupt controllers were saved.
 */
void vfio_pci_kick(struct vfio_pci *pci);
