/* SPDX-License-Identifier: Apache-2.0 */
/* See device.h. */
#include "vfio/device.h"

#include "vfio/given.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- Choosing ---- */

/* Finds the device before anything is opened. A device given by its descriptor alone is named by the number. */
static int vfio_device_identify(struct vfio_device *device, const struct vfio_device_options *options, struct err *err)
{
	int rc;

	if (device->given) {
		device->host = device->given->host;
		device->mdev = device->host.mdev;
		return 0;
	}
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

/* Opens the iommufd of the space for the first device that needs it. */
static int vfio_device_open_iommufd(struct vfio_device *device)
{
	if (device->space->iommufd < 0) {
		int fd = vfio_given_file(device->given, device->sys, "/dev/iommu");

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
	device->backend = noiommu ? &vfio_container_noiommu : &vfio_container_legacy;
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

/* ---- Attaching ---- */

static int vfio_device_realize_iommu(struct vfio_device *device, struct err *err)
{
	if (device->mdev || !device->backend->realize)
		return 0;
	device->iommu = host_iommu_device_create(device->backend->iommu);
	if (!device->iommu)
		return err_sys(err, -ENOMEM, "attach");
	return device->backend->realize(device, err);
}

/* BARs of other devices, which it can do without, may be where its IOMMU reserves addresses. */
static int vfio_device_try(struct vfio_device *device, struct vfio_container *container, struct err *err)
{
	int rc = device->backend->try(device, container, err);

	if (rc != -EADDRINUSE || !device->space->bars)
		return rc;
	vfio_space_lock(device->space);
	vfio_space_unmap_bars_in(device->space, container);
	vfio_space_unlock(device->space);
	rc = device->backend->try(device, container, err);
	vfio_space_lock(device->space);
	vfio_space_map_bars_in(device->space, container);
	vfio_space_unlock(device->space);
	return rc;
}

/* Attaches to the first container that accepts the device: 0, VFIO_MISFIT if none does, or what ends the search. */
static int vfio_device_try_each(struct vfio_device *device, struct vfio_container **ret, struct err *err)
{
	for (struct vfio_container *container = device->space->containers; container; container = container->next) {
		int rc;

		if (container->ops != device->backend)
			continue;
		rc = vfio_device_try(device, container, err);
		if (rc == 0)
			*ret = container;
		if (rc != VFIO_MISFIT)
			return rc;
	}
	return VFIO_MISFIT;
}

static int vfio_device_attach(struct vfio_device *device, struct err *err)
{
	const struct vfio_container_ops *backend = device->backend;
	int rc = backend->open ? backend->open(device, err) : 0;

	if (rc == 0)
		rc = vfio_device_realize_iommu(device, err);
	/* Only now is it known whether a device that was given by its descriptor alone is a mediated one. */
	if (rc == 0 && device->iommu && !device->host.path[0])
		rc = vfio_space_populate_ahead(device->space, err);
	if (rc == 0)
		rc = vfio_device_try_each(device, &device->container, err);
	if (rc == VFIO_MISFIT)
		rc = backend->create(device, &device->container, err);
	if (rc < 0)
		backend->close(device);
	else
		device->container->devices++;
	return rc;
}

/* A container is destroyed with its last device. */
static void vfio_device_detach(struct vfio_device *device)
{
	device->backend->detach(device);
	if (!--device->container->devices)
		device->backend->destroy(device->container);
	device->backend->close(device);
}

/* ---- From attached to usable ---- */

/* The device's own log if it has one and may use it, else that of its IOMMU. */
static struct vfio_dirty_log *vfio_device_choose_log(struct vfio_device *device, bool no_device_log)
{
	struct vfio_dirty_log *log = NULL;

	if (!no_device_log && vfio_dma_log_init(&device->dma_log, &device->space->logs, device->sys, device->fd))
		return &device->dma_log.log;
	if (device->backend->log)
		log = device->backend->log(device);
	return log ?: &device->space->logs.nobody;
}

/* Its log and its peers know it from now on. */
static int vfio_device_join_space(struct vfio_device *device, struct vfio_dirty_log *log, struct err *err)
{
	struct vfio_device **link = &device->space->devices;
	int rc;

	vfio_space_lock(device->space);
	rc = vfio_dirty_log_join(log, &device->dirty, err);
	while (*link)
		link = &(*link)->next;
	if (rc == 0) {
		*link = device;
		vfio_space_add_peer(device->space, device);
	}
	vfio_space_unlock(device->space);
	return rc;
}

static void vfio_device_leave_space(struct vfio_device *device)
{
	struct vfio_device **link = &device->space->devices;

	vfio_space_lock(device->space);
	vfio_dirty_log_leave(&device->dirty);
	vfio_space_remove_peer(device->space, device);
	while (*link && *link != device)
		link = &(*link)->next;
	if (*link)
		*link = device->next;
	vfio_space_unlock(device->space);
}

static int vfio_device_complete(struct vfio_device *device, bool no_device_log, struct err *err)
{
	int rc = vfio_device_get_info(device, err);

	if (rc < 0)
		return rc;
	device->dirty.name = device->host.name;
	return vfio_device_join_space(device, vfio_device_choose_log(device, no_device_log), err);
}

/* Memory is pinned for it. */
static bool vfio_device_will_pin(const struct vfio_device *device)
{
	return device->backend->iommu && device->host.path[0] && !device->mdev;
}

static int vfio_device_bring_in(struct vfio_device *device, const struct vfio_device_options *options, struct err *err)
{
	int rc = vfio_device_identify(device, options, err);

	if (rc == 0)
		rc = vfio_device_choose_backend(device, options, err);
	if (rc == 0 && vfio_device_will_pin(device))
		rc = vfio_space_populate_ahead(device->space, err);
	if (rc == 0)
		rc = vfio_device_attach(device, err);
	vfio_space_populate_stop(device->space);
	if (rc < 0)
		return rc;
	rc = vfio_device_complete(device, options->no_device_log, err);
	if (rc < 0)
		vfio_device_detach(device);
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
	device->vf_token = options->vf_token;
	device->given = options->given;
	device->no_p2p = options->no_p2p;
	rc = vfio_device_bring_in(device, options, err);
	device->vf_token = NULL;
	device->given = NULL;
	if (rc < 0) {
		host_iommu_device_destroy(device->iommu);
		vfio_sys_close(space->sys, &device->fd);
		if (options->device)
			err_prefix(err, rc, "--vfio %s", options->device);
		else
			err_prefix(err, rc, "--vfio fd=%d", handed_in);
		free(device);
		return rc;
	}
	*ret = device;
	return 0;
}

void vfio_device_close(struct vfio_device *device)
{
	if (!device)
		return;
	vfio_device_leave_space(device);
	vfio_device_detach(device);
	host_iommu_device_destroy(device->iommu);
	free(device);
}

int vfio_device_reset(const struct vfio_device *device)
{
	int rc;

	vfio_space_lock(device->space);
	vfio_space_unmap_bars_of(device->space, device);
	rc = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_RESET, NULL);
	vfio_space_map_bars_of(device->space, device);
	vfio_space_unlock(device->space);
	return rc;
}

/* ---- Information ---- */

struct vfio_device_ids vfio_device_ids(const struct vfio_device *device)
{
	return device->backend->ids ? device->backend->ids(device) : (struct vfio_device_ids){0};
}

enum vfio_coverage vfio_device_coverage(const struct vfio_device *device)
{
	return device->dirty.log->ops->coverage;
}

uint64_t vfio_device_untracked(struct vfio_space *space, const struct vfio_device **who)
{
	const struct vfio_dirty_log_user *user;
	uint64_t bytes = vfio_dirty_logs_untracked(&space->logs, &user);

	*who = user ? container_of(user, struct vfio_device, dirty) : NULL;
	return bytes;
}
