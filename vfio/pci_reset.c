/* SPDX-License-Identifier: Apache-2.0 */
/* See pci_reset.h. */
#include "vfio/pci_reset.h"

#include <stdio.h>

#define MAX_DEVICES 64u

/* The devices that are reset together. */
struct reset_set {
	const struct vfio_device *device;
	struct vfio_pci_hot_reset_info info;
	struct vfio_pci_dependent_device members[MAX_DEVICES];
};

struct reset_request {
	struct vfio_pci_hot_reset reset;
	int32_t fds[MAX_DEVICES];
};

/* Under iommufd the kernel names a member by its devid; else its address is compared with the device's name. */
static bool vfio_pci_reset_is(const struct reset_set *set, const struct vfio_pci_dependent_device *member,
			      const struct vfio_device *device)
{
	char name[32];

	if (set->info.flags & VFIO_UAPI_HOT_RESET_DEV_ID)
		return member->group_id && member->group_id == vfio_device_ids(device).devid;
	snprintf(name, sizeof(name), "%04x:%02x:%02x.%x", member->segment, member->bus, member->devfn >> 3,
		 member->devfn & 7);
	return strcmp(name, device->host.name) == 0;
}

static bool vfio_pci_reset_has(const struct reset_set *set, const struct vfio_device *device)
{
	for (uint32_t i = 0; i < set->info.count; i++)
		if (vfio_pci_reset_is(set, &set->members[i], device))
			return true;
	return device == set->device;
}

/* ---- Checks ---- */

static bool vfio_pci_reset_listed(const struct reset_request *request, int fd)
{
	for (uint32_t i = 0; i < request->reset.count; i++)
		if (request->fds[i] == fd)
			return true;
	return false;
}

/* Checks that all members are this guest's and adds their groups to the request; under iommufd the kernel knows. */
static int vfio_pci_reset_check_owned(const struct reset_set *set, struct reset_request *request, struct err *err)
{
	for (uint32_t i = 0; i < set->info.count; i++) {
		const struct vfio_pci_dependent_device *m = &set->members[i];
		int fd;

		if (!set->device->backend->owns(set->device, m->group_id, &fd))
			return err_set(err, -EPERM,
				       "it can only be reset with its bus, on which %04x:%02x:%02x.%x is not this "
				       "guest's; it is not reset", m->segment, m->bus, m->devfn >> 3,
				       m->devfn & 7);
		if (fd >= 0 && !vfio_pci_reset_listed(request, fd))
			request->fds[request->reset.count++] = fd;
	}
	request->reset.argsz += request->reset.count * (uint32_t)sizeof(int32_t);
	return 0;
}

static int vfio_pci_reset_check_idle(const struct reset_set *set, struct err *err)
{
	for (const struct vfio_device *device = set->device->space->devices; device; device = device->next)
		if (device->in_use && vfio_pci_reset_has(set, device))
			return err_set(err, -EBUSY,
				       "it can only be reset with its bus, on which %s is in use by this guest; "
				       "it is not reset", device->host.name);
	return 0;
}

/* ---- Resetting ---- */

static int vfio_pci_reset_failed(int rc, struct err *err)
{
	return err_set(err, rc, "it has no reset (%s); it starts in the state that its last user left",
		       strerrordesc_np(-rc));
}

static int vfio_pci_reset_read(struct reset_set *set, struct err *err)
{
	const struct vfio_device *device = set->device;
	int rc;

	set->info.argsz = sizeof(set->info) + sizeof(set->members);
	rc = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &set->info);
	if (rc >= 0 && set->info.count > MAX_DEVICES)
		rc = -E2BIG;
	if (rc < 0)
		set->info.count = 0;
	return rc < 0 ? vfio_pci_reset_failed(rc, err) : 0;
}

static int vfio_pci_reset_bus(struct reset_set *set, struct err *err)
{
	struct reset_request request = {.reset.argsz = sizeof(request.reset)};
	int rc = vfio_pci_reset_read(set, err);

	if (rc == 0)
		rc = vfio_pci_reset_check_owned(set, &request, err);
	if (rc == 0)
		rc = vfio_pci_reset_check_idle(set, err);
	if (rc < 0)
		return rc;
	rc = vfio_sys_ioctl(set->device->sys, set->device->fd, VFIO_DEVICE_PCI_HOT_RESET, &request);
	return rc < 0 ? vfio_pci_reset_failed(rc, err) : 0;
}

/* Tries one reset for the whole set. */
static void vfio_pci_reset_set(struct vfio_device *device)
{
	struct reset_set set = {.device = device};
	struct err err;
	int rc = vfio_pci_reset_bus(&set, &err);

	for (struct vfio_device *member = device->space->devices; member; member = member->next) {
		if (member->reset || !vfio_pci_reset_has(&set, member))
			continue;
		member->reset = rc == 0 ? "bus" : "none";
		if (rc < 0)
			log_warn(member->log, "vfio %s: %s", member->host.name, err.text);
	}
}

void vfio_pci_reset(struct vfio_space *space)
{
	struct vfio_device *device;

	for (device = space->devices; device; device = device->next)
		if (!device->reset && device->flags & VFIO_DEVICE_FLAGS_RESET)
			device->reset = "function";
	for (device = space->devices; device; device = device->next)
		if (!device->reset)
			vfio_pci_reset_set(device);
	for (device = space->devices; device; device = device->next)
		device->in_use = true;
}
