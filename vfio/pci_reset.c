/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reset of a function that has none of its own: by its bus (VFIO_DEVICE_PCI_HOT_RESET), which the kernel allows to
 * whoever holds every device there. Ownership is shown by the groups' descriptors, or under iommufd by the bindings.
 */
#include "vfio/pci.h"

#include "vfio/pci_internal.h"

#define MAX_DEVICES 64u

struct dependents {
	struct vfio_pci_hot_reset_info info;
	struct vfio_pci_dependent_device devices[MAX_DEVICES];
};

struct reset_request {
	struct vfio_pci_hot_reset reset;
	int32_t fds[MAX_DEVICES];
};

static bool vfio_pci_reset_listed(const struct reset_request *request, int fd)
{
	for (uint32_t i = 0; i < request->reset.count; i++)
		if (request->fds[i] == fd)
			return true;
	return false;
}

static int vfio_pci_reset_foreign(struct vfio_pci *pci, const struct vfio_pci_dependent_device *d)
{
	log_warn(pci->machine.log,
		 "vfio %s: it can only be reset with its bus, and %04x:%02x:%02x.%x there is not this guest's; going on without "
		 "a reset", pci->device->host.name, d->segment, d->bus, d->devfn >> 3, d->devfn & 7);
	return 1;
}

/* 0 when all devices on the bus are this guest's, 1 when one is not, which has been said. The request then names every
 * group of them; under iommufd the kernel knows by itself. */
static int vfio_pci_reset_collect_groups(struct vfio_pci *pci, const struct dependents *on_bus,
					 struct reset_request *request)
{
	for (uint32_t i = 0; i < on_bus->info.count; i++) {
		const struct vfio_pci_dependent_device *d = &on_bus->devices[i];
		int fd;

		if (!pci->device->backend->owns(pci->device, d->group_id, &fd))
			return vfio_pci_reset_foreign(pci, d);
		if (fd >= 0 && !vfio_pci_reset_listed(request, fd))
			request->fds[request->reset.count++] = fd;
	}
	request->reset.argsz += request->reset.count * (uint32_t)sizeof(int32_t);
	return 0;
}

/* 0; 1: it cannot be, and that has been said; -errno. */
static int vfio_pci_reset_bus(struct vfio_pci *pci)
{
	const struct vfio_device *device = pci->device;
	struct dependents on_bus = {.info.argsz = sizeof(on_bus)};
	struct reset_request request = {.reset.argsz = sizeof(request.reset)};
	int ret = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &on_bus);

	if (ret < 0 || on_bus.info.count > MAX_DEVICES)
		return ret < 0 ? ret : -E2BIG;
	ret = vfio_pci_reset_collect_groups(pci, &on_bus, &request);
	if (ret != 0)
		return ret;
	ret = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_PCI_HOT_RESET, &request);
	return MIN(ret, 0);
}

void vfio_pci_reset(struct vfio_pci *pci)
{
	int ret;

	if (pci->device->flags & VFIO_DEVICE_FLAGS_RESET)
		return;
	ret = vfio_pci_reset_bus(pci);
	if (ret == 0)
		pci->reset = "bus";
	else if (ret < 0)
		log_warn(pci->machine.log, "vfio %s: it has no reset (%s); it begins as its last user left it",
			 pci->device->host.name, strerrordesc_np(-ret));
}
