/* SPDX-License-Identifier: Apache-2.0 */
/* See group.h. */
#include "vfio/group.h"

#include "vfio/given.h"
#include "vfio/vfio_uapi.h"

#include <fcntl.h>
#include <stdio.h>

struct vfio_group {
	int id;
	int fd;
	unsigned int users;               /* devices */
	struct vfio_container *container; /* NULL until it is in one */
	struct vfio_group *next;          /* the space's */
};

/* ---- Opening ---- */

static int vfio_group_check(const struct vfio_device *device, const struct vfio_group *group, const char *path,
			    struct err *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	int rc = vfio_sys_ioctl(device->sys, group->fd, VFIO_GROUP_GET_STATUS, &status);

	if (rc < 0)
		return err_sys(err, rc, "%s: read its status", path);
	if (status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET)
		return err_set(err, -EBUSY, "%s is in another container already", path);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return vfio_host_not_viable(device->sys, &device->host, err);
	return 0;
}

static int vfio_group_open(const struct vfio_device *device, struct vfio_group *group, struct err *err)
{
	char path[64];
	int rc;

	vfio_host_group_path(&device->host, path);
	group->fd = vfio_given_file(device->given, device->sys, path);
	if (group->fd < 0)
		return vfio_host_open_failed(&device->host, path, group->fd, err);
	rc = vfio_group_check(device, group, path, err);
	if (rc == 0)
		rc = vfio_space_add_to_hypervisor(device->space, group->fd, err);
	if (rc < 0)
		vfio_sys_close(device->sys, &group->fd);
	return rc;
}

static struct vfio_group *vfio_group_find(const struct vfio_space *space, int id)
{
	struct vfio_group *group = space->groups;

	while (group && group->id != id)
		group = group->next;
	return group;
}

static int vfio_group_create(struct vfio_device *device, struct vfio_group **ret, struct err *err)
{
	struct vfio_group *group = calloc(1, sizeof(*group));
	int rc;

	if (!group)
		return err_sys(err, -ENOMEM, "group");
	group->id = device->host.group;
	rc = vfio_group_open(device, group, err);
	if (rc < 0) {
		free(group);
		return rc;
	}
	group->next = device->space->groups;
	device->space->groups = group;
	*ret = group;
	return 0;
}

/* Finds or opens the group of the device, which becomes a user of it. */
static int vfio_group_get(struct vfio_device *device, struct err *err)
{
	struct vfio_group *group = vfio_group_find(device->space, device->host.group);
	int rc = group ? 0 : vfio_group_create(device, &group, err);

	if (rc < 0 || device->attachment)
		return rc;
	group->users++;
	device->attachment = group;
	return 0;
}

void vfio_group_close(struct vfio_device *device)
{
	struct vfio_group *group = take_ptr(device->attachment), **link = &device->space->groups;

	if (!group || --group->users)
		return;
	while (*link != group)
		link = &(*link)->next;
	*link = group->next;
	vfio_space_remove_from_hypervisor(device->space, group->fd);
	vfio_sys_close(device->sys, &group->fd);
	free(group);
}

/* ---- Devices ---- */

static int vfio_group_open_device(struct vfio_device *device, struct err *err)
{
	const struct vfio_group *group = device->attachment;
	char name[128], uuid[37];
	int fd;

	snprintf(name, sizeof(name), "%s", device->host.name);
	if (device->vf_token) {
		vfio_uuid_text(device->vf_token, uuid);
		snprintf(name, sizeof(name), "%s vf_token=%s", device->host.name, uuid);
	}
	fd = vfio_sys_ioctl(device->sys, group->fd, VFIO_GROUP_GET_DEVICE_FD, name);
	if (fd == -EACCES)
		return err_set(err, fd,
			       device->vf_token ? "the VF token is not that of its physical function" :
						  "it needs the VF token of its physical function (vf-token=UUID)");
	if (fd == -EBUSY)
		return err_set(err, fd, "it is in use by another process; 'fuser -v /dev/vfio/%d %s' shows which",
			       group->id, device->host.cdev);
	if (fd < 0)
		return err_sys(err, fd, "open it through /dev/vfio/%d", group->id);
	device->fd = fd;
	return 0;
}

/* ---- Containers ---- */

static int vfio_group_check_container(const struct vfio_sys *sys, int fd, unsigned long type, const char *name,
				      struct err *err)
{
	int rc = vfio_sys_ioctl(sys, fd, VFIO_GET_API_VERSION, NULL);

	if (rc < 0)
		return err_sys(err, rc, "ask /dev/vfio/vfio for its version");
	if (rc != VFIO_API_VERSION)
		return err_set(err, -EOPNOTSUPP, "/dev/vfio/vfio speaks version %d of VFIO, this program version %d",
			       rc, VFIO_API_VERSION);
	rc = vfio_sys_ioctl_value(sys, fd, VFIO_CHECK_EXTENSION, type);
	if (rc < 0)
		return err_sys(err, rc, "ask /dev/vfio/vfio for its IOMMU types");
	if (rc == 0)
		return err_set(err, -EOPNOTSUPP, "/dev/vfio/vfio has no %s: load it with 'modprobe vfio_iommu_type1'",
			       name);
	return 0;
}

static int vfio_group_set_container(struct vfio_group *group, struct vfio_group_container *c)
{
	int rc = vfio_sys_ioctl(c->base.space->sys, group->fd, VFIO_GROUP_SET_CONTAINER, &c->fd);

	if (rc >= 0)
		group->container = &c->base;
	return rc;
}

static void vfio_group_unset_container(const struct vfio_device *device, struct vfio_group *group)
{
	int rc = vfio_sys_ioctl(device->sys, group->fd, VFIO_GROUP_UNSET_CONTAINER, NULL);

	/* Closing the group, which follows, does the same. */
	if (rc < 0)
		log_warn(device->log, "vfio: remove group %d from its container: %s", group->id, strerrordesc_np(-rc));
	group->container = NULL;
}

/* EINVAL or EPERM is expected (another kind of group or IOMMU). */
static int vfio_group_join(const struct vfio_device *device, struct vfio_group_container *c, struct err *err)
{
	struct vfio_group *group = device->attachment;
	int rc;

	if (group->container)
		return group->container == &c->base ? 0 : VFIO_MISFIT;
	rc = vfio_group_set_container(group, c);
	if (rc == -EINVAL || rc == -EPERM)
		return VFIO_MISFIT;
	return rc < 0 ? err_sys(err, rc, "put group %d into a container", group->id) : 0;
}

/* Puts the group into a new container, which thereby gets its IOMMU. */
static int vfio_group_enter(const struct vfio_device *device, struct vfio_group_container *c, struct err *err)
{
	int rc = vfio_group_set_container(device->attachment, c);

	if (rc == -EPERM || rc == -EBUSY)
		return vfio_host_not_viable(device->sys, &device->host, err);
	if (rc < 0)
		return err_sys(err, rc, "put group %d into a container", device->host.group);
	rc = vfio_sys_ioctl_value(device->sys, c->fd, VFIO_SET_IOMMU, c->kind->type);
	if (rc == -EPERM)
		return err_set(err, rc,
			       "this host cannot isolate a device's interrupts (no interrupt remapping): enable it "
			       "in the firmware, or accept the risk with "
			       "'echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts'");
	return rc < 0 ? err_sys(err, rc, "set the container's IOMMU type") : 0;
}

/* After the group has joined: reads what can be mapped and opens the device. */
static int vfio_group_complete(struct vfio_device *device, struct vfio_group_container *c, struct err *err)
{
	int rc = c->kind->read_info ? c->kind->read_info(c) : 0;

	return rc < 0 ? err_sys(err, rc, "read what the container can map") : vfio_group_open_device(device, err);
}

int vfio_group_try(struct vfio_device *device, struct vfio_container *container, struct err *err)
{
	struct vfio_group_container *c = container_of(container, struct vfio_group_container, base);
	int rc = vfio_group_get(device, err);

	if (rc == 0)
		rc = vfio_group_join(device, c, err);
	if (rc != 0)
		return rc;
	rc = vfio_group_complete(device, c, err);
	if (rc < 0)
		vfio_group_detach(device);
	return rc;
}

static int vfio_group_open_container(const struct vfio_device *device, struct vfio_group_container *c, struct err *err)
{
	c->fd = vfio_given_file(device->given, device->sys, "/dev/vfio/vfio");
	if (c->fd < 0)
		return vfio_host_open_failed(&device->host, "/dev/vfio/vfio", c->fd, err);
	return vfio_group_check_container(device->sys, c->fd, c->kind->type, c->kind->name, err);
}

/* Maps RAM last: it is prefaulted while the device is opened, which resets the device. */
static int vfio_group_fill(struct vfio_device *device, struct vfio_group_container *c, struct err *err)
{
	int rc = vfio_group_get(device, err);

	if (rc == 0)
		rc = vfio_group_open_container(device, c, err);
	if (rc < 0)
		return rc;
	rc = vfio_group_enter(device, c, err);
	if (rc == 0)
		rc = vfio_group_complete(device, c, err);
	if (rc == 0)
		rc = vfio_space_add_container(device->space, &c->base, err);
	if (rc < 0)
		vfio_group_detach(device);
	return rc;
}

int vfio_group_create_container(struct vfio_device *device, const struct vfio_group_kind *kind,
				struct vfio_container **ret, struct err *err)
{
	struct vfio_group_container *c = calloc(1, kind->size);
	int rc;

	if (!c)
		return err_sys(err, -ENOMEM, "container");
	c->base.ops = kind->ops;
	c->base.space = device->space;
	c->base.pins = kind->ops->iommu && !device->mdev;
	c->kind = kind;
	c->fd = -1;
	rc = vfio_group_fill(device, c, err);
	if (rc < 0)
		vfio_group_destroy(&c->base);
	else
		*ret = &c->base;
	return rc;
}

void vfio_group_destroy(struct vfio_container *container)
{
	struct vfio_group_container *c = container_of(container, struct vfio_group_container, base);

	vfio_space_remove_container(container->space, container);
	vfio_sys_close(container->space->sys, &c->fd);
	free(c);
}

/* Closes the device first. The group leaves its container with its last device. */
void vfio_group_detach(struct vfio_device *device)
{
	struct vfio_group *group = device->attachment;

	vfio_sys_close(device->sys, &device->fd);
	if (group->users == 1 && group->container)
		vfio_group_unset_container(device, group);
}

/* The descriptor of the group proves ownership. */
bool vfio_group_owns(const struct vfio_device *device, uint32_t id, int *fd)
{
	const struct vfio_group *group = vfio_group_find(device->space, (int)id);

	if (group)
		*fd = group->fd;
	return group;
}
