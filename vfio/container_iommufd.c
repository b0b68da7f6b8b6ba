/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The iommufd backend: one IOAS for each container; user space chooses the page tables (HWPT).
 *
 * A device is opened by its own file and bound, the IOMMU behind it is queried, and then it is attached to the first
 * HWPT of a container that accepts it (EINVAL means "another IOMMU", any other error ends the attempt), else to a new
 * HWPT. A new HWPT has dirty tracking if the IOMMU supports it, because that cannot be added later. A mediated device
 * is attached to the IOAS. Called by vfio/device.c and vfio/space.c through the table at the end.
 */
#include "vfio/space.h"

#include "vfio/feature.h"
#include "vfio/given.h"
#include "vfio/vfio_uapi.h"

#include <fcntl.h>

struct hwpt {
	uint32_t id;
	bool dirty;           /* made with dirty tracking */
	unsigned int devices; /* attached to it */
	const struct iommufd *iommufd;
	struct vfio_dirty_log log;
	struct hwpt *next;
};

struct iommufd_container {
	struct vfio_container base;
	struct iommufd iommufd;
	uint32_t ioas;
	bool by_address;   /* the kernel has no IOMMU_IOAS_MAP_FILE */
	bool warned_mixed;
	struct hwpt *hwpts;
};

/* A device's attachment, from bind on. */
struct attachment {
	uint32_t devid;
	struct hwpt *hwpt; /* NULL: the IOAS itself */
};

static const struct vfio_dirty_log_ops log_ops;

static struct iommufd_container *vfio_iommufd_of(struct vfio_container *container)
{
	return container_of(container, struct iommufd_container, base);
}

static struct attachment *vfio_iommufd_attachment(const struct vfio_device *device)
{
	return device->attachment;
}

static struct iommufd vfio_iommufd_file(const struct vfio_device *device)
{
	return (struct iommufd){.sys = device->sys, .fd = device->space->iommufd};
}

/* ---- Containers ---- */

static int vfio_iommufd_read_ranges(struct iommufd_container *c)
{
	struct iommufd_uapi_range *ranges = NULL;
	uint32_t count = 0;
	int rc;

	/* The first call returns the count, which may grow before the next call. */
	while ((rc = iommufd_ioas_iova_ranges(&c->iommufd, c->ioas, ranges, &count)) == -EMSGSIZE) {
		free(ranges);
		ranges = calloc(count, sizeof(*ranges));
		if (!ranges)
			return -ENOMEM;
	}
	if (rc < 0)
		free(ranges);
	else
		vfio_container_set_ranges(&c->base, ranges, count);
	return rc;
}

static void vfio_iommufd_destroy(struct vfio_container *container)
{
	struct iommufd_container *c = vfio_iommufd_of(container);
	int rc;

	vfio_space_remove_container(c->base.space, &c->base);
	rc = iommufd_destroy(&c->iommufd, c->ioas);
	if (rc < 0)
		log_warn(c->base.space->log, "vfio: destroy IOAS %u: %s", c->ioas, strerrordesc_np(-rc));
	free(c);
}

static int vfio_iommufd_container_create(struct vfio_device *device, struct iommufd_container **ret, struct err *err)
{
	struct iommufd_container *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_sys(err, -ENOMEM, "container");
	c->base.ops = &vfio_container_iommufd;
	c->base.space = device->space;
	c->iommufd = vfio_iommufd_file(device);
	rc = iommufd_ioas_alloc(&c->iommufd, &c->ioas);
	if (rc < 0) {
		free(c);
		return err_sys(err, rc, "make an IOAS");
	}
	*ret = c;
	return 0;
}

/* ---- Auto-domains ---- */

static int vfio_iommufd_attach_pt(const struct vfio_device *device, uint32_t pt)
{
	struct vfio_uapi_attach cmd = {.argsz = sizeof(cmd), .pt_id = pt};

	return vfio_sys_ioctl(device->sys, device->fd, VFIO_UAPI_ATTACH, &cmd);
}

static int vfio_iommufd_detach_pt(const struct vfio_device *device)
{
	struct vfio_uapi_detach cmd = {.argsz = sizeof(cmd)};

	return vfio_sys_ioctl(device->sys, device->fd, VFIO_UAPI_DETACH, &cmd);
}

/* Allocates a page table, with dirty tracking if the IOMMU supports it. The kernel may refuse the combination. */
static int vfio_iommufd_hwpt_alloc(const struct iommufd_container *c, const struct vfio_device *device,
				   struct hwpt *hwpt)
{
	bool dirty = host_iommu_tracks_dirty(device->iommu);
	uint32_t flags = dirty ? IOMMUFD_UAPI_HWPT_DIRTY_TRACKING : 0;
	int rc = iommufd_hwpt_alloc(&c->iommufd, vfio_iommufd_attachment(device)->devid, c->ioas, flags, &hwpt->id);

	if (dirty && (rc == -EOPNOTSUPP || rc == -EINVAL)) {
		dirty = false;
		rc = iommufd_hwpt_alloc(&c->iommufd, vfio_iommufd_attachment(device)->devid, c->ioas, 0, &hwpt->id);
		if (rc == 0)
			log_warn(device->log,
				 "vfio %s: the kernel refuses a page table with dirty tracking: it is made without",
				 device->host.name);
	}
	hwpt->dirty = dirty;
	return rc;
}

static int vfio_iommufd_hwpt_destroy(const struct iommufd_container *c, struct hwpt *hwpt)
{
	int rc = iommufd_destroy(&c->iommufd, hwpt->id);

	if (rc < 0)
		log_warn(c->base.space->log, "vfio: destroy HWPT %u: %s", hwpt->id, strerrordesc_np(-rc));
	free(hwpt);
	return rc;
}

static int vfio_iommufd_hwpt_create(struct iommufd_container *c, struct vfio_device *device, struct hwpt **ret)
{
	struct hwpt *hwpt = calloc(1, sizeof(*hwpt));
	int rc;

	if (!hwpt)
		return -ENOMEM;
	hwpt->iommufd = &c->iommufd;
	vfio_dirty_log_init(&hwpt->log, &device->space->logs, &log_ops);
	rc = vfio_iommufd_hwpt_alloc(c, device, hwpt);
	if (rc < 0) {
		free(hwpt);
		return rc;
	}
	rc = vfio_iommufd_attach_pt(device, hwpt->id);
	if (rc < 0) {
		vfio_iommufd_hwpt_destroy(c, hwpt);
		return rc;
	}
	hwpt->next = c->hwpts;
	c->hwpts = hwpt;
	c->base.pins = true;
	*ret = hwpt;
	return 0;
}

/* Warns once, with a name, if some page tables of a container can track and others cannot. */
static void vfio_iommufd_warn_mixed(struct iommufd_container *c, const struct vfio_device *device,
				    const struct hwpt *mine)
{
	for (const struct hwpt *hwpt = c->hwpts; hwpt && !c->warned_mixed; hwpt = hwpt->next) {
		if (hwpt->dirty == mine->dirty)
			continue;
		c->warned_mixed = true;
		log_warn(device->log, "vfio %s: its IOMMU %s dirty pages, that of another device %s", device->host.name,
			 mine->dirty ? "tracks" : "does not track", hwpt->dirty ? "does" : "does not");
	}
}

/* Attaches the device to the first page table that accepts it. -EINVAL: all are for other IOMMUs. */
static int vfio_iommufd_hwpt_find(const struct iommufd_container *c, const struct vfio_device *device,
				  struct hwpt **ret)
{
	for (struct hwpt *hwpt = c->hwpts; hwpt; hwpt = hwpt->next) {
		int rc = vfio_iommufd_attach_pt(device, hwpt->id);

		if (rc == 0)
			*ret = hwpt;
		if (rc != -EINVAL)
			return rc;
	}
	return -EINVAL;
}

/* Attaches the device within this container: 0, -EINVAL when it does not fit here, or another -errno. No text. */
static int vfio_iommufd_attach_auto(struct iommufd_container *c, struct vfio_device *device)
{
	struct hwpt *hwpt;
	int rc;

	if (!device->iommu)
		return vfio_iommufd_attach_pt(device, c->ioas);
	rc = vfio_iommufd_hwpt_find(c, device, &hwpt);
	if (rc == -EINVAL)
		rc = vfio_iommufd_hwpt_create(c, device, &hwpt);
	if (rc < 0)
		return rc;
	hwpt->devices++;
	vfio_iommufd_attachment(device)->hwpt = hwpt;
	vfio_iommufd_warn_mixed(c, device, hwpt);
	return 0;
}

/* After the device has been detached or closed: destroys the HWPT with its last device. */
static void vfio_iommufd_leave_hwpt(struct iommufd_container *c, struct vfio_device *device)
{
	struct hwpt **link = &c->hwpts, *hwpt = take_ptr(vfio_iommufd_attachment(device)->hwpt);

	if (!hwpt || --hwpt->devices)
		return;
	while (*link != hwpt)
		link = &(*link)->next;
	*link = hwpt->next;
	c->base.pins = c->hwpts;
	vfio_iommufd_hwpt_destroy(c, hwpt);
}

/* Removes the file from the hypervisor before it is closed, else closing it does not unbind. */
static void vfio_iommufd_close_file(struct vfio_device *device)
{
	if (device->fd >= 0)
		vfio_space_remove_from_hypervisor(device->space, device->fd);
	vfio_sys_close(device->sys, &device->fd);
}

/*
 * Detaches, then leaves the HWPT. If the detach fails, closing the device detaches it, so that the HWPT can be
 * destroyed after that.
 */
static void vfio_iommufd_leave(struct iommufd_container *c, struct vfio_device *device)
{
	int rc = vfio_iommufd_detach_pt(device);

	if (rc < 0) {
		log_warn(device->log, "vfio %s: detach: %s", device->host.name, strerrordesc_np(-rc));
		vfio_iommufd_close_file(device);
	}
	vfio_iommufd_leave_hwpt(c, device);
}

static void vfio_iommufd_detach(struct vfio_device *device)
{
	vfio_iommufd_leave(vfio_iommufd_of(device->container), device);
}

/* The ranges that can be mapped are known only after the attach. */
static int vfio_iommufd_attach(struct iommufd_container *c, struct vfio_device *device, struct err *err)
{
	int rc = vfio_iommufd_attach_auto(c, device);

	if (rc == -EINVAL)
		return VFIO_MISFIT;
	if (rc == -EADDRINUSE)
		return err_set(err, rc, "its IOMMU reserves addresses where guest memory is mapped already");
	if (rc == -ENOMEM && vfio_space_explain_limit(device->space, &c->base, err))
		return rc;
	if (rc < 0)
		return err_sys(err, rc, "attach it to an address space");
	rc = vfio_iommufd_read_ranges(c);
	if (rc < 0) {
		vfio_iommufd_leave(c, device);
		return err_sys(err, rc, "read the ranges that can be mapped");
	}
	return 0;
}

/* The first page table of a container that had mediated devices alone pins all that is mapped. */
static int vfio_iommufd_try(struct vfio_device *device, struct vfio_container *container, struct err *err)
{
	int rc = device->iommu && !container->pins ? vfio_space_populate(device->space, err) : 0;

	return rc < 0 ? rc : vfio_iommufd_attach(vfio_iommufd_of(container), device, err);
}

static int vfio_iommufd_create(struct vfio_device *device, struct vfio_container **ret, struct err *err)
{
	struct iommufd_container *c;
	int rc = vfio_iommufd_container_create(device, &c, err);

	if (rc < 0)
		return rc;
	rc = vfio_iommufd_attach(c, device, err);
	if (rc == VFIO_MISFIT)
		rc = err_sys(err, -EINVAL, "attach it to an address space");
	if (rc < 0) {
		vfio_iommufd_destroy(&c->base);
		return rc;
	}
	rc = vfio_space_add_container(device->space, &c->base, err);
	if (rc < 0) {
		vfio_iommufd_leave(c, device);
		vfio_iommufd_destroy(&c->base);
		return rc;
	}
	*ret = &c->base;
	return 0;
}

/* ---- Devices ---- */

static int vfio_iommufd_bind_failed(const struct vfio_device *device, int rc, bool token, struct err *err)
{
	switch (rc) {
	case -EPERM:
		if (device->host.group < 0)
			break;
		return vfio_host_not_viable(device->sys, &device->host, err);
	case -EBUSY:
		return err_set(err, rc, "it is in use through its group (/dev/vfio/%d) by another process; 'fuser -v /dev/vfio/%d' tells "
			       "which", device->host.group, device->host.group);
	case -EACCES:
		return err_set(err, rc, token ? "the VF token is not that of its physical function" :
						"it needs the VF token of its physical function (vf-token=UUID)");
	case -EINVAL:
		return err_set(err, rc, token ? "bind: it takes no VF token, or another process has it open; 'fuser -v %s' shows which" :
						"bind: another process has it open; 'fuser -v %s' shows which",
			       device->host.cdev[0] ? device->host.cdev : "/dev/vfio/devices/*");
	}
	return err_sys(err, rc, "bind it to iommufd");
}

static int vfio_iommufd_bind(struct vfio_device *device, struct err *err)
{
	const uint8_t *token = device->vf_token;
	struct vfio_uapi_bind cmd = {
		.argsz = token ? sizeof(cmd) : VFIO_UAPI_BIND_SIZE_OLD,
		.flags = token ? VFIO_UAPI_BIND_TOKEN : 0,
		.iommufd = device->space->iommufd,
		.token = (uintptr_t)token,
	};
	int rc = vfio_sys_ioctl(device->sys, device->fd, VFIO_UAPI_BIND, &cmd);

	if (rc < 0)
		return vfio_iommufd_bind_failed(device, rc, token, err);
	vfio_iommufd_attachment(device)->devid = cmd.devid;
	return 0;
}

/* Queries the IOMMU between bind and the first page table. A device with no IOMMU behind it is a mediated one. */
static int vfio_iommufd_realize(struct vfio_device *device, struct err *err)
{
	struct iommufd iommufd = vfio_iommufd_file(device);
	struct host_iommu_source source = {.iommufd = &iommufd, .devid = vfio_iommufd_attachment(device)->devid};
	int rc = host_iommu_device_realize(device->iommu, &source);

	if (rc == -ENOENT && !device->host.path[0]) {
		host_iommu_device_destroy(take_ptr(device->iommu));
		device->mdev = true;
		return 0;
	}
	return rc < 0 ? err_sys(err, rc, "ask for its IOMMU") : 0;
}

static int vfio_iommufd_open(struct vfio_device *device, struct err *err)
{
	int rc;

	device->attachment = calloc(1, sizeof(struct attachment));
	if (!device->attachment) {
		vfio_sys_close(device->sys, &device->fd);
		return err_sys(err, -ENOMEM, "attach");
	}
	if (device->fd < 0)
		device->fd = vfio_given_file(device->given, device->sys, device->host.cdev);
	if (device->fd < 0)
		return vfio_host_open_failed(&device->host, device->host.cdev, device->fd, err);
	rc = vfio_space_add_to_hypervisor(device->space, device->fd, err);
	if (rc < 0) {
		vfio_sys_close(device->sys, &device->fd);
		return rc;
	}
	return vfio_iommufd_bind(device, err);
}

static void vfio_iommufd_close(struct vfio_device *device)
{
	vfio_iommufd_close_file(device);
	free(take_ptr(device->attachment));
}

/* ---- Memory ---- */

/* Maps by file, which survives a change of process; by address if the kernel or the file does not support that. */
static int vfio_iommufd_map(struct vfio_container *container, const struct vfio_dma *dma)
{
	struct iommufd_container *c = vfio_iommufd_of(container);
	int rc = -EINVAL;

	if (dma->fd >= 0 && !c->by_address)
		rc = iommufd_ioas_map_file(&c->iommufd, c->ioas, dma->iova, dma->size, dma->fd, dma->fd_offset);
	if (rc == -ENOTTY)
		c->by_address = true;
	if (rc == -ENOTTY || rc == -EINVAL)
		rc = iommufd_ioas_map(&c->iommufd, c->ioas, dma->iova, dma->size, dma->host);
	return rc;
}

static int vfio_iommufd_unmap(struct vfio_container *container, uint64_t iova, uint64_t size)
{
	struct iommufd_container *c = vfio_iommufd_of(container);

	return iommufd_ioas_unmap(&c->iommufd, c->ioas, iova, size);
}

/* iommufd maps no BAR by its address; the device exports a dma-buf of it if the kernel can. */
static int vfio_iommufd_map_bar(struct vfio_container *container, const struct vfio_bar *bar)
{
	struct vfio_uapi_dma_buf cmd = {
		.region = bar->region,
		.open_flags = O_RDWR | O_CLOEXEC,
		.range_count = 1,
		.offset = bar->offset,
		.length = bar->size,
	};
	struct iommufd_container *c = vfio_iommufd_of(container);
	int fd = vfio_feature(bar->device->sys, bar->device->fd, VFIO_DEVICE_FEATURE_GET, VFIO_UAPI_FEATURE_DMA_BUF,
			      &cmd, sizeof(cmd));
	int rc;

	if (fd < 0)
		return fd;
	rc = iommufd_ioas_map_file(&c->iommufd, c->ioas, bar->gpa, bar->size, fd, 0);
	vfio_sys_close(bar->device->sys, &fd);
	return rc;
}

/* ---- Dirty pages ---- */

static int vfio_iommufd_track(struct vfio_dirty_log *log, bool on)
{
	const struct hwpt *hwpt = container_of(log, struct hwpt, log);

	return iommufd_hwpt_set_dirty_tracking(hwpt->iommufd, hwpt->id, on);
}

static int vfio_iommufd_query(struct vfio_dirty_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap)
{
	const struct hwpt *hwpt = container_of(log, struct hwpt, log);

	return iommufd_hwpt_get_dirty_bitmap(hwpt->iommufd, hwpt->id, iova, size, GUEST_PAGE_SIZE, bitmap);
}

static const struct vfio_dirty_log_ops log_ops = {
	.coverage = VFIO_COVERAGE_HWPT,
	.name = "the dirty log of the IOMMU (hwpt)",
	.track = vfio_iommufd_track,
	.query = vfio_iommufd_query,
};

static struct vfio_dirty_log *vfio_iommufd_log(struct vfio_device *device)
{
	struct hwpt *hwpt = vfio_iommufd_attachment(device)->hwpt;

	return hwpt && hwpt->dirty ? &hwpt->log : NULL;
}

/* ---- Information ---- */

static struct vfio_device_ids vfio_iommufd_ids(const struct vfio_device *device)
{
	const struct attachment *attachment = vfio_iommufd_attachment(device);

	return (struct vfio_device_ids){
		.devid = attachment->devid,
		.ioas = vfio_iommufd_of(device->container)->ioas,
		.hwpt = attachment->hwpt ? attachment->hwpt->id : 0,
	};
}

static bool vfio_iommufd_owns(const struct vfio_device *device, uint32_t id, int *fd)
{
	*fd = -1;
	return id != VFIO_UAPI_DEVID_NOT_OWNED;
}

const struct vfio_container_ops vfio_container_iommufd = {
	.name = "iommufd",
	.locks_per_user = true,
	.open = vfio_iommufd_open,
	.iommu = &host_iommu_iommufd,
	.realize = vfio_iommufd_realize,
	.try = vfio_iommufd_try,
	.create = vfio_iommufd_create,
	.detach = vfio_iommufd_detach,
	.destroy = vfio_iommufd_destroy,
	.close = vfio_iommufd_close,
	.map = vfio_iommufd_map,
	.unmap = vfio_iommufd_unmap,
	.map_bar = vfio_iommufd_map_bar,
	.log = vfio_iommufd_log,
	.ids = vfio_iommufd_ids,
	.owns = vfio_iommufd_owns,
};
