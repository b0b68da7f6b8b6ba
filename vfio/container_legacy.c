/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The legacy backend: IOMMU groups (/dev/vfio/N) and type1v2 containers (/dev/vfio/vfio).
 *
 * A device is opened through its group (group.c), which joins the first container that accepts it, or a new one. The
 * kernel keeps one page table for each kind of IOMMU inside a container, so there is nothing to choose here; when the
 * last group leaves, all maps end. Mediated devices have containers of their own: there the kernel knows each page that
 * they write, while for a device behind an IOMMU, whose driver pins nothing, it reports all memory as dirty; and there
 * a map pins no memory. Contract: <linux/vfio.h>. Called by vfio/device.c and vfio/space.c through the table at the
 * end.
 */
#include "vfio/group.h"

#include "core/bitmap.h"
#include "vfio/vfio_uapi.h"

struct legacy_container {
	struct vfio_group_container file;
	bool can_log;        /* type1 dirty tracking, at our page size */
	uint64_t max_bitmap; /* bytes in one query */
	struct vfio_dirty_log log;
};

static struct legacy_container *vfio_legacy_of(struct vfio_container *container)
{
	return container_of(container, struct legacy_container, file.base);
}

/* ---- Information about a container ---- */

/* GET_INFO with its capabilities: the first call returns the size. */
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
		rc = vfio_sys_ioctl(c->file.base.space->sys, c->file.fd, VFIO_IOMMU_GET_INFO, info);
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
 * Copies len bytes of a capability out; returns its offset in info, or 0 if it is missing. Reads nothing outside of the
 * buffer. Older kernels do not align capabilities.
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
	vfio_container_set_ranges(&c->file.base, ranges, count);
	return 0;
}

static int vfio_legacy_take_info(struct vfio_group_container *file)
{
	struct legacy_container *c = container_of(file, struct legacy_container, file);
	struct vfio_iommu_type1_info_cap_migration migration = {0};
	struct vfio_iommu_type1_info_dma_avail avail = {0};
	struct vfio_iommu_type1_info *info;
	int rc;

	rc = vfio_legacy_read_info(c, &info);
	if (rc < 0)
		return rc;
	vfio_legacy_find_cap(info, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, &migration, sizeof(migration));
	c->can_log = migration.pgsize_bitmap & GUEST_PAGE_SIZE;
	c->max_bitmap = migration.max_dirty_bitmap_size;
	vfio_legacy_find_cap(info, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, &avail, sizeof(avail));
	c->file.base.map_limit = avail.avail;
	rc = vfio_legacy_take_ranges(c, info);
	free(info);
	return rc;
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

	return vfio_sys_ioctl(c->file.base.space->sys, c->file.fd, VFIO_IOMMU_MAP_DMA, &cmd);
}

static int vfio_legacy_map(struct vfio_container *container, const struct vfio_dma *dma)
{
	return vfio_legacy_map_address(vfio_legacy_of(container), dma->iova, dma->size, dma->host);
}

static int vfio_legacy_unmap(struct vfio_container *container, uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap cmd = {.argsz = sizeof(cmd), .iova = iova, .size = size};
	int rc = vfio_sys_ioctl(container->space->sys, vfio_legacy_of(container)->file.fd, VFIO_IOMMU_UNMAP_DMA, &cmd);

	return rc == 0 && cmd.size == 0 ? -ENOENT : rc;
}

/* Type1 maps a BAR by its address in this process. */
static int vfio_legacy_map_bar(struct vfio_container *container, const struct vfio_bar *bar)
{
	return bar->host ? vfio_legacy_map_address(vfio_legacy_of(container), bar->gpa, bar->size, bar->host) :
			   -EOPNOTSUPP;
}

/* ---- Dirty pages ---- */

static int vfio_legacy_track(struct vfio_dirty_log *log, bool on)
{
	const struct legacy_container *c = container_of(log, struct legacy_container, log);
	struct vfio_iommu_type1_dirty_bitmap cmd = {
		.argsz = sizeof(cmd),
		.flags = on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START : VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
	};

	return vfio_sys_ioctl(c->file.base.space->sys, c->file.fd, VFIO_IOMMU_DIRTY_PAGES, &cmd);
}

/* The kernel overwrites the bitmap, so it gets one of its own unless the caller's is blank. */
static int vfio_legacy_query(struct vfio_dirty_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap)
{
	const struct legacy_container *c = container_of(log, struct legacy_container, log);
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
	rc = vfio_sys_ioctl(c->file.base.space->sys, c->file.fd, VFIO_IOMMU_DIRTY_PAGES, cmd);
	for (uint64_t i = 0; answer && rc >= 0 && i < words; i++)
		bitmap[i] |= answer[i];
	return rc < 0 ? rc : 0;
}

/* The kernel refuses a query that cuts a map; bits outside of the request must not be lost. */
static const struct vfio_dirty_log_ops log_ops = {
	.coverage = VFIO_COVERAGE_TYPE1,
	.name = "the dirty log of the IOMMU (type1)",
	.whole = true,
	.track = vfio_legacy_track,
	.query = vfio_legacy_query,
};

static struct vfio_dirty_log *vfio_legacy_log(struct vfio_device *device)
{
	struct legacy_container *c = vfio_legacy_of(device->container);

	return c->can_log && !c->file.base.pins ? &c->log : NULL;
}

/* ---- Attaching ---- */

static int vfio_legacy_realize(struct vfio_device *device, struct err *err)
{
	struct host_iommu_source source = {.sys = device->sys, .sysfs = device->host.path};
	int rc = host_iommu_device_realize(device->iommu, &source);

	return rc < 0 ? err_sys(err, rc, "ask for its IOMMU") : 0;
}

static int vfio_legacy_try(struct vfio_device *device, struct vfio_container *container, struct err *err)
{
	return container->pins == device->mdev ? VFIO_MISFIT : vfio_group_try(device, container, err);
}

static int vfio_legacy_create(struct vfio_device *device, struct vfio_container **ret, struct err *err)
{
	static const struct vfio_group_kind kind = {
		.ops = &vfio_container_legacy,
		.type = VFIO_TYPE1v2_IOMMU,
		.name = "type1v2 IOMMU",
		.size = sizeof(struct legacy_container),
		.read_info = vfio_legacy_take_info,
	};
	int rc = vfio_group_create_container(device, &kind, ret, err);

	if (rc == 0)
		vfio_dirty_log_init(&vfio_legacy_of(*ret)->log, &device->space->logs, &log_ops);
	return rc;
}

const struct vfio_container_ops vfio_container_legacy = {
	.name = "legacy",
	.iommu = &host_iommu_legacy,
	.realize = vfio_legacy_realize,
	.try = vfio_legacy_try,
	.create = vfio_legacy_create,
	.detach = vfio_group_detach,
	.destroy = vfio_group_destroy,
	.close = vfio_group_close,
	.map = vfio_legacy_map,
	.unmap = vfio_legacy_unmap,
	.map_bar = vfio_legacy_map_bar,
	.log = vfio_legacy_log,
	.owns = vfio_group_owns,
};
