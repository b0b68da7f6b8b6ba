/* SPDX-License-Identifier: Apache-2.0 */
/* See device.h. */
#include "vfio/device.h"

#include "vfio/container.h"
#include "vfio/tracker.h"

#include <fcntl.h>
#include <stdio.h>

#define MAX_FEATURE 64u

const char *vfio_coverage_name(enum vfio_coverage coverage)
{
	static const char *const names[] = {
		[VFIO_COVERAGE_NONE] = "none",
		[VFIO_COVERAGE_TYPE1] = "type1",
		[VFIO_COVERAGE_HWPT] = "hwpt",
		[VFIO_COVERAGE_DEVICE] = "device log",
	};

	return names[coverage];
}

int vfio_device_feature(const struct vfio_device *device, uint32_t op, uint32_t feature, void *data, size_t len)
{
	_Alignas(8) uint8_t buf[sizeof(struct vfio_device_feature) + MAX_FEATURE] = {0};
	struct vfio_device_feature *arg = (void *)buf;
	int rc;

	if (len > MAX_FEATURE)
		return -E2BIG;
	arg->argsz = (uint32_t)(sizeof(*arg) + len);
	arg->flags = op | feature;
	if (len)
		memcpy(arg->data, data, len);
	rc = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_FEATURE, arg);
	if (rc >= 0 && len)
		memcpy(data, arg->data, len);
	return rc;
}

/* Says what the device is before anything is opened. A descriptor alone is known by its number. */
static int vfio_device_identify(struct vfio_device *device, const struct vfio_device_options *options, struct err *err)
{
	int rc;

	if (!options->device) {
		device->host = (struct vfio_host){.group = -1};
		snprintf(device->host.name, sizeof(device->host.name), "fd %d", device->fd);
		return 0;
	}
	rc = vfio_host_find(device->sys, options->device, &device->host, err);
	if (rc == 0 && device->fd < 0)
		rc = vfio_host_check_bound(&device->host, err);
	device->mdev = rc == 0 && device->host.mdev;
	return rc;
}

/* The iommufd of the space, opened when the first device asks for it. */
static int vfio_device_open_iommufd(struct vfio_device *device)
{
	if (device->space->iommufd < 0) {
		int fd = device->sys->ops->open(device->sys, "/dev/iommu", O_RDWR);

		if (fd < 0)
			return fd;
		device->space->iommufd = fd;
	}
	return 0;
}

static int vfio_device_choose_backend(struct vfio_device *device, const struct vfio_device_options *options,
				      struct err *err)
{
	bool noiommu = options->backend == VFIO_WANT_NOIOMMU;
	int rc;

	if (device->host.noiommu != noiommu)
		return noiommu ? err_set(err, -EINVAL, "backend=noiommu: the device has an IOMMU; leave backend out") :
				 err_set(err, -EPERM,
					 "it has no IOMMU (VFIO's no-IOMMU mode): the device could write anywhere in the "
					 "host's memory; only backend=noiommu accepts that");
	device->backend = &vfio_container_legacy;
	if (device->fd >= 0 && (noiommu || options->backend == VFIO_WANT_LEGACY))
		return err_set(err, -EINVAL, "fd= needs the iommufd backend: a group's descriptor is not taken");
	if (noiommu || options->backend == VFIO_WANT_LEGACY)
		return 0;
	if (device->fd < 0 && !device->host.cdev[0]) {
		if (options->backend == VFIO_WANT_AUTO)
			return 0;
		return err_set(err, -ENODEV, "this kernel makes no /dev/vfio/devices file for it; use backend=legacy");
	}
	rc = vfio_device_open_iommufd(device);
	if (rc == 0)
		device->backend = &vfio_container_iommufd;
	else if (rc == -ENOENT && device->fd < 0 && options->backend == VFIO_WANT_AUTO)
		rc = 0;
	else
		vfio_host_open_failed(&device->host, "/dev/iommu", rc, err);
	return rc;
}

static int vfio_device_get_info(struct vfio_device *device, struct err *err)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	int rc = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_GET_INFO, &info);

	if (rc < 0)
		return err_sys(err, rc, "read the device's information");
	device->flags = info.flags;
	device->num_regions = info.num_regions;
	device->num_irqs = info.num_irqs;
	return 0;
}

static void vfio_device_join_space(struct vfio_device *device)
{
	struct vfio_device **link = &device->space->devices;

	while (*link)
		link = &(*link)->next;
	*link = device;
}

static void vfio_device_leave_space(struct vfio_device *device)
{
	struct vfio_device **link = &device->space->devices;

	while (*link && *link != device)
		link = &(*link)->next;
	if (*link)
		*link = device->next;
}

/* From attached to usable. */
static int vfio_device_complete(struct vfio_device *device, const struct vfio_device_options *options, struct err *err)
{
	int rc = vfio_device_get_info(device, err);

	if (rc < 0)
		return rc;
	vfio_tracker_init(device, options->no_device_log);
	vfio_device_join_space(device);
	rc = device->space->dirty ? dirty_set_add(device->space->dirty, &device->source, err) : 0;
	if (rc < 0)
		vfio_device_leave_space(device);
	return rc;
}

static int vfio_device_attach(struct vfio_device *device, const struct vfio_device_options *options, struct err *err)
{
	int rc = vfio_device_identify(device, options, err);

	if (rc == 0)
		rc = vfio_device_choose_backend(device, options, err);
	if (rc < 0)
		return rc;
	if (!device->mdev) {
		device->iommu = host_iommu_device_create(device->backend->iommu);
		if (!device->iommu)
			return err_sys(err, -ENOMEM, "attach");
	}
	rc = device->host.noiommu ? 0 : vfio_space_populate_ahead(device->space, err);
	if (rc == 0)
		rc = device->backend->attach(device, options, err);
	vfio_space_populate_stop(device->space);
	if (rc < 0)
		return rc;
	rc = vfio_device_complete(device, options, err);
	if (rc < 0)
		device->backend->detach(device);
	return rc;
}

int vfio_device_open(struct vfio_space *space, const struct vfio_device_options *options, struct vfio_device **ret,
		     struct err *err)
{
	struct vfio_device *device = calloc(1, sizeof(*device));
	int fd = options->fd ? take_fd(options->fd) : -1, handed_in = fd;
	int rc;

	if (!device) {
		vfio_sys_close(space->sys, &fd);
		return err_sys(err, -ENOMEM, "vfio");
	}
	device->space = space;
	device->sys = space->sys;
	device->log = space->log;
	device->fd = fd;
	rc = vfio_device_attach(device, options, err);
	if (rc < 0) {
		host_iommu_device_destroy(device->iommu);
		vfio_sys_close(space->sys, &device->fd);
		if (options->device)
			err_prefix(err, rc, "vfio %s", options->device);
		else
			err_prefix(err, rc, "vfio fd=%d", handed_in);
		free(device);
		return rc;
	}
	vfio_space_note_bars(space);
	*ret = device;
	return 0;
}

void vfio_device_close(struct vfio_device *device)
{
	if (!device)
		return;
	vfio_tracker_flush(device);
	if (device->space->dirty)
		dirty_set_remove(device->space->dirty, &device->source);
	vfio_device_leave_space(device);
	device->backend->detach(device);
	host_iommu_device_destroy(device->iommu);
	free(device);
}
