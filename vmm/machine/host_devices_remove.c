/* SPDX-License-Identifier: Apache-2.0 */
/* How host devices leave a machine, by way of its slots. Part of host_devices.h. */
#include "vmm/machine/host_devices_internal.h"

void host_devices_remove_free(struct host_device *device)
{
	free(device->id);
	free(device);
}

static void host_devices_remove_detach(void *opaque)
{
	struct host_device *device = opaque, **link = &device->devices->first;

	while (*link != device)
		link = &(*link)->next;
	*link = device->next;
	device->devices->leaving++;
	device->closing = vfio_pci_remove(take_ptr(device->pci));
}

/* With the last device, all memory is unpinned. */
static void host_devices_remove_close(void *opaque)
{
	struct host_device *device = opaque;

	vfio_device_close(take_ptr(device->closing));
}

static void host_devices_remove_gone(void *opaque, bool removed)
{
	struct host_device *device = opaque;
	const struct host_devices_machine *machine = &device->devices->machine;

	device->devices->leaving--;
	if (removed)
		machine->ops->gone(machine->opaque, device->id);
	host_devices_remove_free(device);
}

const struct slot_ops host_device_ops = {
	.kind = "vfio", .noun = "host device", .detach = host_devices_remove_detach,
	.close = host_devices_remove_close, .gone = host_devices_remove_gone,
};

int host_devices_remove(struct host_devices *devices, const char *id, bool force, unsigned int timeout_ms,
			slots_done_fn *done, void *opaque, struct err *err)
{
	return slots_remove(devices->machine.slots, &host_device_ops, id, force, timeout_ms, done, opaque, err);
}

void host_devices_remove_all(struct host_devices *devices)
{
	slots_leave_ejected(devices->machine.slots);
	/* A device may be writing to another one. */
	for (struct host_device *device = devices->first; device; device = device->next)
		vfio_pci_stop_dma(device->pci);
	while (devices->first)
		slots_leave(devices->first->slot);
}

/* The kernel signals this until the device is released, so the guest is asked as long as somebody waits. */
void host_devices_remove_on_wanted(void *opaque, struct vfio_pci *pci)
{
	struct host_devices *devices = opaque;
	struct host_device *device = devices->first;

	while (device && device->pci != pci)
		device = device->next;
	if (device)
		slots_want(device->slot);
}

int host_devices_set_blocker(struct host_devices *devices, const char *why, struct err *err)
{
	return slots_set_blocker(devices->machine.slots, why, err);
}
