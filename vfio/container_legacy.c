/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The legacy backend: IOMMU groups (/dev/vfio/N) and type1v2 containers (/dev/vfio/vfio).
 *
 * A device is reached through its group, which joins the first container that takes it, or a new one. The kernel keeps
 * one page table for each kind of IOMMU inside a container, so there is nothing to choose here; when the last group
 * leaves, all maps go. Contract: <linux/vfio.h>. Called by vfio/device.c and vfio/space.c through the table at the end.
 */
#include "vfio/container.h"

#include "core/bitmap.h"

#include <fcntl.h>
#include <stdio.h>

struct legacy_container {
	struct vfio_container base;
	int fd;
	bool can_log;         /* type1 dirty tracking, at our page size */
	uint64_t max_bitmap;  /* bytes in one query */
};

struct vfio_group {
	int id;
	int fd;
	unsigned int devices;
	struct legacy_container *container; /* NULL until it has joined one */
	struct vfio_group *next;            /* the space's */
};

int vfio_legacy_group_fd(const struct vfio_space *space, int id)
{
	for (const struct vfio_group *group = space->groups; group; group = group->next)
		if (group->id == id)
			return group->fd;
	return -1;
}

static struct legacy_container *vfio_legacy_of(struct vfio_container *container)
{
	return container_of(container, struct legacy_container, base);
}

/* ---- Information about a container ---- */

/* GET_INFO with its chain of capabilities: the first call tells how much room they take. */
static int vfio_legacy_read_info(const struct legacy_container *c, struct vfio_iommu_type1_info **ret)
{
	uint32_t size = sizeof(struct vfio_iommu_type1_info);
	struct vfio_iommu_type1_info *info = NULL;
	int rc;

	for (;;) {
		free(info);
		info = calloc(1, size);
		if (!info)
			return -ENOMEM;
		info->argsz = size;
		rc = vfio_sys_ioctl(c->base.space->sys, c->fd, VFIO_IOMMU_GET_INFO, info);
		if (rc < 0) {
			free(info);
			return rc;
		}
		if (info->argsz <= size)
			break;
		size = info->argsz;
	}
	info->argsz = size;
	*ret = info;
	return 0;
}

/*
 * Copies len bytes of a capability out; its place in info, or 0 when it is not there. The chain is the kernel's, but
 * nothing outside the buffer is read, and older kernels do not align what is in it.
 */
static size_t vfio_legacy_find_cap(const struct vfio_iommu_type1_info *info, uint16_t id, void *cap, size_t len)
{
	uint32_t at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0;
	struct vfio_info_cap_header head;

	while (at >= sizeof(*info) && at <= info->argsz - sizeof(head)) {
		memcpy(&head, (const char *)info + at, sizeof(head));
		if (head.id == id) {
			if (info->argsz - at < len)
				return 0;
			memcpy(cap, (const char *)info + at, len);
			return at;
		}
		if (head.next <= at)
			return 0;
		at = head.next;
	}
	return 0;
}

static int vfio_legacy_take_ranges(struct legacy_container *c, const struct vfio_iommu_type1_info *info)
{
	struct vfio_iommu_type1_info_cap_iova_range cap = {0};
	size_t at = vfio_legacy_find_cap(info, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, &cap, sizeof(cap));
	size_t count = at ? MIN((size_t)cap.nr_iovas,
				(info->argsz - at - sizeof(cap)) / sizeof(struct vfio_iova_range)) : 0;
	struct iommufd_uapi_range *ranges = calloc(count + 1, sizeof(*ranges));

	if (!ranges)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct vfio_iova_range range;

		memcpy(&range, (const char *)info + at + sizeof(cap) + i * sizeof(range), sizeof(range));
		ranges[i] = (struct iommufd_uapi_range){.start = range.start, .last = range.end};
	}
	vfio_container_set_ranges(&c->base, ranges, count);
	return 0;
}

static int vfio_legacy_take_info(struct legacy_container *c)
{
	struct vfio_iommu_type1_info_cap_migration migration = {0};
	struct vfio_iommu_type1_info_dma_avail avail = {0};
	struct vfio_iommu_type1_info *info;
	int rc;

	if (c->base.noiommu)
		return 0;
	rc = vfio_legacy_read_info(c, &info);
	if (rc < 0)
		return rc;
	vfio_legacy_find_cap(info, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, &migration, sizeof(migration));
	c->can_log = migration.pgsize_bitmap & GUEST_PAGE_SIZE;
	c->max_bitmap = migration.max_dirty_bitmap_size;
	vfio_legacy_find_cap(info, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, &avail, sizeof(avail));
	c->base.map_limit = avail.avail;
	rc = vfio_legacy_take_ranges(c, info);
	free(info);
	return rc;
}

/* ---- Containers ---- */

static void vfio_legacy_container_close(struct legacy_container *c)
{
	vfio_space_remove_container(c->base.space, &c->base);
	vfio_sys_close(c->base.space->sys, &c->fd);
	free(c);
}

static int vfio_legacy_set_container(const struct vfio_space *space, const struct vfio_group *group, int container_fd)
{
	return vfio_sys_ioctl(space->sys, group->fd, VFIO_GROUP_SET_CONTAINER, &container_fd);
}

static void vfio_legacy_unset_container(struct vfio_space *space, struct vfio_group *group)
{
	int rc = vfio_sys_ioctl(space->sys, group->fd, VFIO_GROUP_UNSET_CONTAINER, NULL);

	/* Closing the group, which follows, does the same. */
	if (rc < 0)
		log_warn(space->log, "vfio: group %d leaves its container: %s", group->id, strerrordesc_np(-rc));
	group->container = NULL;
}

static int vfio_legacy_container_open(struct vfio_device *device, struct legacy_container **ret, struct err *err)
{
	struct vfio_space *space = device->space;
	struct legacy_container *c = calloc(1, sizeof(*c));
	unsigned long type = device->host.noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU;
	int rc;

	if (!c)
		return err_sys(err, -ENOMEM, "container");
	c->base.ops = &vfio_container_legacy;
	c->base.space = space;
	c->base.noiommu = device->host.noiommu;
	c->fd = space->sys->ops->open(space->sys, "/dev/vfio/vfio", O_RDWR);
	if (c->fd < 0) {
		rc = vfio_host_open_failed(&device->host, "/dev/vfio/vfio", c->fd, err);
		free(c);
		return rc;
	}
	rc = vfio_sys_ioctl(space->sys, c->fd, VFIO_GET_API_VERSION, NULL);
	if (rc >= 0 && rc != VFIO_API_VERSION)
		rc = err_set(err, -EOPNOTSUPP, "/dev/vfio/vfio speaks version %d of VFIO, this program version %d", rc,
			     VFIO_API_VERSION);
	else if (rc < 0)
		err_sys(err, rc, "ask /dev/vfio/vfio for its version");
	else if ((rc = vfio_sys_ioctl_value(space->sys, c->fd, VFIO_CHECK_EXTENSION, type)) < 0)
		err_sys(err, rc, "ask /dev/vfio/vfio for its IOMMU types");
	else if (rc == 0)
		rc = err_set(err, -EOPNOTSUPP, "/dev/vfio/vfio has no %s: load it with 'modprobe vfio_iommu_type1'",
			     device->host.noiommu ? "no-IOMMU mode" : "type1v2 IOMMU");
	if (rc < 0) {
		vfio_legacy_container_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

/* The group gives the container its IOMMU. */
static int vfio_legacy_container_setup(struct legacy_container *c, struct vfio_group *group, struct err *err)
{
	struct vfio_space *space = c->base.space;
	int rc = vfio_sys_ioctl_value(space->sys, c->fd, VFIO_SET_IOMMU,
				      c->base.noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU);

	if (rc == -EPERM)
		return err_set(err, rc, "this host cannot keep a device's interrupts apart (no interrupt remapping): enable it in the "
			       "firmware, or accept the risk with "
			       "'echo Y > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts'");
	if (rc < 0)
		return err_sys(err, rc, "set the container's IOMMU type");
	rc = vfio_legacy_take_info(c);
	return rc < 0 ? err_sys(err, rc, "read what the container can map") : 0;
}

/* Maps all RAM into a new container. The device is open by then: it was being reset while RAM was being populated. */
static int vfio_legacy_container_fill(struct legacy_container *c, struct err *err)
{
	for (const struct vfio_container *other = c->base.space->containers; other; other = other->next)
		if (other == &c->base)
			return 0;
	return vfio_space_add_container(c->base.space, &c->base, err);
}

static int vfio_legacy_container_new(struct vfio_device *device, struct vfio_group *group, struct err *err)
{
	struct legacy_container *c = NULL;
	int rc = vfio_legacy_container_open(device, &c, err);

	if (rc < 0)
		return rc;
	rc = vfio_legacy_set_container(device->space, group, c->fd);
	if (rc == -EPERM || rc == -EBUSY)
		vfio_host_not_viable(device->sys, &device->host, err);
	else if (rc < 0)
		err_sys(err, rc, "put group %d into a container", group->id);
	if (rc < 0) {
		vfio_legacy_container_close(c);
		return rc;
	}
	rc = vfio_legacy_container_setup(c, group, err);
	if (rc < 0) {
		vfio_legacy_unset_container(device->space, group);
		vfio_legacy_container_close(c);
		return rc;
	}
	group->container = c;
	return 0;
}

/* Into a container that takes the group. EINVAL or EPERM is expected (another kind of group or IOMMU): try the next. */
static int vfio_legacy_container_join(struct vfio_device *device, struct vfio_group *group, struct err *err)
{
	for (struct vfio_container *container = device->space->containers; container; container = container->next) {
		struct legacy_container *c = vfio_legacy_of(container);
		int rc;

		if (container->ops != &vfio_container_legacy)
			continue;
		rc = vfio_legacy_set_container(device->space, group, c->fd);
		if (rc == -EINVAL || rc == -EPERM)
			continue;
		if (rc < 0)
			return err_sys(err, rc, "put group %d into a container", group->id);
		group->container = c;
		rc = vfio_legacy_take_info(c);
		if (rc < 0) {
			vfio_legacy_unset_container(device->space, group);
			return err_sys(err, rc, "read what the container can map");
		}
		return 0;
	}
	return vfio_legacy_container_new(device, group, err);
}

/* ---- Groups ---- */

static int vfio_legacy_group_check(struct vfio_device *device, const struct vfio_group *group, const char *path,
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

static void vfio_legacy_group_free(struct vfio_space *space, struct vfio_group *group)
{
	vfio_sys_close(space->sys, &group->fd);
	free(group);
}

static int vfio_legacy_group_open(struct vfio_device *device, struct vfio_group **ret, struct err *err)
{
	struct vfio_space *space = device->space;
	struct vfio_group *group = calloc(1, sizeof(*group));
	char path[64];
	int rc;

	if (!group)
		return err_sys(err, -ENOMEM, "group");
	group->id = device->host.group;
	snprintf(path, sizeof(path), device->host.noiommu ? "/dev/vfio/noiommu-%d" : "/dev/vfio/%d", group->id);
	group->fd = space->sys->ops->open(space->sys, path, O_RDWR);
	if (group->fd < 0) {
		rc = vfio_host_open_failed(&device->host, path, group->fd, err);
		free(group);
		return rc;
	}
	rc = vfio_legacy_group_check(device, group, path, err);
	if (rc == 0)
		rc = vfio_space_tell_hypervisor(space, group->fd, err);
	if (rc == 0) {
		rc = vfio_legacy_container_join(device, group, err);
		if (rc < 0)
			vfio_space_untell_hypervisor(space, group->fd);
	}
	if (rc < 0) {
		vfio_legacy_group_free(space, group);
		return rc;
	}
	group->next = space->groups;
	space->groups = group;
	*ret = group;
	return 0;
}

/* The group that holds the device, opened and in a container. */
static int vfio_legacy_group_get(struct vfio_device *device, struct vfio_group **ret, struct err *err)
{
	for (struct vfio_group *group = device->space->groups; group; group = group->next)
		if (group->id == device->host.group) {
			*ret = group;
			return 0;
		}
	return vfio_legacy_group_open(device, ret, err);
}

/* Closes a group without devices, and its container when it was the last one there. */
static void vfio_legacy_group_put(struct vfio_space *space, struct vfio_group *group)
{
	struct legacy_container *c = group->container;
	struct vfio_group **link = &space->groups;
	bool last = true;

	if (group->devices)
		return;
	while (*link != group)
		link = &(*link)->next;
	*link = group->next;
	for (const struct vfio_group *other = space->groups; other; other = other->next)
		last &= other->container != c;
	vfio_legacy_unset_container(space, group);
	vfio_space_untell_hypervisor(space, group->fd);
	vfio_legacy_group_free(space, group);
	if (last)
		vfio_legacy_container_close(c);
}

/* ---- Devices ---- */

static int vfio_legacy_open_device(struct vfio_device *device, const struct vfio_group *group, const uint8_t *token,
				   struct err *err)
{
	char name[128], uuid[37];
	int fd;

	snprintf(name, sizeof(name), "%s", device->host.name);
	if (token) {
		vfio_uuid_text(token, uuid);
		snprintf(name, sizeof(name), "%s vf_token=%s", device->host.name, uuid);
	}
	fd = vfio_sys_ioctl(device->sys, group->fd, VFIO_GROUP_GET_DEVICE_FD, name);
	if (fd == -EACCES)
		return err_set(err, fd, token ? "the VF token is not the one that its physical function was given" :
						"it needs the VF token of its physical function (vf-token=UUID)");
	if (fd == -EBUSY)
		return err_set(err, fd, "it is in use by another process; 'fuser -v /dev/vfio/%d %s' tells which",
			       group->id, device->host.cdev);
	if (fd < 0)
		return err_sys(err, fd, "open it through /dev/vfio/%d", group->id);
	device->fd = fd;
	return 0;
}

static int vfio_legacy_attach(struct vfio_device *device, const struct vfio_device_options *options, struct err *err)
{
	struct host_iommu_source source = {.sys = device->sys, .sysfs = device->host.path};
	struct vfio_group *group = NULL;
	int rc = device->iommu ? host_iommu_device_realize(device->iommu, &source) : 0;

	if (rc < 0)
		return err_sys(err, rc, "ask for its IOMMU");
	rc = vfio_legacy_group_get(device, &group, err);
	if (rc < 0)
		return rc;
	rc = vfio_legacy_open_device(device, group, options->vf_token, err);
	if (rc == 0)
		rc = vfio_legacy_container_fill(group->container, err);
	if (rc < 0) {
		vfio_sys_close(device->sys, &device->fd);
		vfio_legacy_group_put(device->space, group);
		return rc;
	}
	group->devices++;
	group->container->base.devices++;
	device->group = group;
	device->container = &group->container->base;
	return 0;
}

static void vfio_legacy_detach(struct vfio_device *device)
{
	struct vfio_group *group = device->group;

	vfio_sys_close(device->sys, &device->fd);
	group->devices--;
	group->container->base.devices--;
	device->group = NULL;
	device->container = NULL;
	vfio_legacy_group_put(device->space, group);
}

/* ---- Memory ---- */

static int vfio_legacy_map_address(struct legacy_container *c, uint64_t iova, uint64_t size, const void *host)
{
	struct vfio_iommu_type1_dma_map cmd = {
		.argsz = sizeof(cmd),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)host,
		.iova = iova,
		.size = size,
	};

	return vfio_sys_ioctl(c->base.space->sys, c->fd, VFIO_IOMMU_MAP_DMA, &cmd);
}

static int vfio_legacy_map(struct vfio_container *container, const struct vfio_dma *dma)
{
	return vfio_legacy_map_address(vfio_legacy_of(container), dma->iova, dma->size, dma->host);
}

static int vfio_legacy_unmap(struct vfio_container *container, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap cmd = {.argsz = sizeof(cmd), .iova = iova, .size = size};
	int rc = vfio_sys_ioctl(container->space->sys, vfio_legacy_of(container)->fd, VFIO_IOMMU_UNMAP_DMA, &cmd);

	return rc == 0 && cmd.size == 0 ? -ENOENT : rc;
}

/* Type1 pins a BAR by the address at which it is mapped in this process. */
static int vfio_legacy_map_bar(struct vfio_container *container, const struct vfio_bar *bar)
{
	return bar->host ? vfio_legacy_map_address(vfio_legacy_of(container), bar->gpa, bar->size, bar->host)
	: -EOPNOTSUPP;
}

/* ---- Dirty pages ---- */

static enum vfio_coverage vfio_legacy_coverage(const struct vfio_device *device)
{
	return vfio_legacy_of(device->container)->can_log ? VFIO_COVERAGE_TYPE1 : VFIO_COVERAGE_NONE;
}

static int vfio_legacy_track(struct vfio_device *device, bool on)
{
	struct vfio_iommu_type1_dirty_bitmap cmd = {
		.argsz = sizeof(cmd),
		.flags = on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START : VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
	};

	return vfio_sys_ioctl(device->sys, vfio_legacy_of(device->container)->fd, VFIO_IOMMU_DIRTY_PAGES, &cmd);
}

/*
 * The kernel writes the whole bitmap and does not OR, so it gets one of its own, unless nobody has set a bit in the caller's.
 * keep has no counterpart here: what is read stays known because it goes into guest memory's log.
 */
static int vfio_legacy_collect(struct vfio_device *device, uint64_t iova, uint64_t size, unsigned long *bitmap,
			       bool keep)
{
	struct legacy_container *c = vfio_legacy_of(device->container);
	_Alignas(8) uint8_t buf[sizeof(struct vfio_iommu_type1_dirty_bitmap) +
				sizeof(struct vfio_iommu_type1_dirty_bitmap_get)] = {0};
	struct vfio_iommu_type1_dirty_bitmap *cmd = (void *)buf;
	struct vfio_iommu_type1_dirty_bitmap_get *get = (void *)cmd->data;
	uint64_t words = (size / GUEST_PAGE_SIZE + 63) / 64;
	_cleanup_(free_ptr) unsigned long *answer = NULL;
	int rc;

	if (words * 8 > c->max_bitmap)
		return -E2BIG;
	if (!bitmap_is_blank(bitmap, words)) {
		answer = calloc(words, 8);
		if (!answer)
			return -ENOMEM;
	}
	cmd->argsz = sizeof(buf);
	cmd->flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
	*get = (struct vfio_iommu_type1_dirty_bitmap_get){
		.iova = iova,
		.size = size,
		.bitmap = {.pgsize = GUEST_PAGE_SIZE, .size = words * 8, .data = (void *)(answer ?: bitmap)},
	};
	rc = vfio_sys_ioctl(device->sys, c->fd, VFIO_IOMMU_DIRTY_PAGES, cmd);
	for (uint64_t i = 0; answer && rc >= 0 && i < words; i++)
		bitmap[i] |= answer[i];
	return rc < 0 ? rc : 0;
}

const struct vfio_container_ops vfio_container_legacy = {
	.name = "legacy",
	.iommu = &host_iommu_legacy,
	.attach = vfio_legacy_attach,
	.detach = vfio_legacy_detach,
	.map = vfio_legacy_map,
	.unmap = vfio_legacy_unmap,
	.map_bar = vfio_legacy_map_bar,
	.coverage = vfio_legacy_coverage,
	.track = vfio_legacy_track,
	.collect = vfio_legacy_collect,
};
