/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_vfio.h: the iommufd half. IOAS, HWPT and bound devices, with the rules of drivers/iommu/iommufd. */
#include "tests/unit/fake_internal.h"

#include <stdio.h>

struct fake_object *fake_object(struct fake_kernel *fake, int ctx, uint32_t id, enum fake_object_kind kind)
{
	struct fake_object *object;

	if (!id || id > FAKE_MAX)
		return NULL;
	object = &fake->objects[id - 1];
	return object->kind == kind && object->ctx == ctx ? object : NULL;
}

struct fake_object *fake_object_new(struct fake_kernel *fake, int ctx, enum fake_object_kind kind, uint32_t *id)
{
	for (uint32_t i = 0; i < FAKE_MAX; i++) {
		if (fake->objects[i].kind)
			continue;
		memset(&fake->objects[i], 0, sizeof(fake->objects[i]));
		fake->objects[i].kind = kind;
		fake->objects[i].ctx = ctx;
		*id = i + 1;
		return &fake->objects[i];
	}
	fake_die("objects");
}

/* Something refers to the object: a HWPT to its IOAS, a device to what it is attached to. */
static bool in_use(struct fake_kernel *fake, int ctx, uint32_t id)
{
	for (int i = 0; i < FAKE_MAX; i++) {
		if (fake->objects[i].kind == FAKE_HWPT && fake->objects[i].ctx == ctx && fake->objects[i].ioas == id)
			return true;
		if (fake->devices[i].used && fake->devices[i].ctx == ctx + 1 && fake->devices[i].pt == id)
			return true;
	}
	return fake->objects[id - 1].kind == FAKE_IDEV;
}

static int do_destroy(struct fake_kernel *fake, int ctx, struct iommufd_uapi_destroy *cmd)
{
	struct fake_object *object = cmd->id && cmd->id <= FAKE_MAX ? &fake->objects[cmd->id - 1] : NULL;
	uint64_t unmapped;

	if (!object || !object->kind || object->ctx != ctx)
		return -ENOENT;
	if (in_use(fake, ctx, cmd->id))
		return -EBUSY;
	if (object->kind == FAKE_IOAS)
		fake_unmap(fake, &object->maps, 0, UINT64_MAX, &unmapped);
	object->kind = FAKE_FREE;
	return 0;
}

/* The reserved range of the IOMMUs whose devices are attached to this IOAS, directly or by a HWPT. */
static bool reserved(struct fake_kernel *fake, int ctx, uint32_t ioas, uint64_t *start, uint64_t *last)
{
	for (int i = 0; i < FAKE_MAX; i++) {
		const struct fake_device *device = &fake->devices[i];
		struct fake_object *hwpt;

		if (!device->used || device->ctx != ctx + 1 || device->iommu < 0)
			continue;
		hwpt = fake_object(fake, ctx, device->pt, FAKE_HWPT);
		if (device->pt != ioas && (!hwpt || hwpt->ioas != ioas))
			continue;
		*start = fake->iommus[device->iommu].reserved_start;
		*last = fake->iommus[device->iommu].reserved_last;
		if (*last)
			return true;
	}
	return false;
}

static int do_ranges(struct fake_kernel *fake, int ctx, struct iommufd_uapi_iova_ranges *cmd)
{
	struct iommufd_uapi_range all[2] = {{0, UINT64_MAX}}, *out = (void *)(uintptr_t)cmd->ranges;
	uint32_t room = cmd->count, count = 1;
	uint64_t start, last;

	if (!fake_object(fake, ctx, cmd->ioas_id, FAKE_IOAS))
		return -ENOENT;
	if (reserved(fake, ctx, cmd->ioas_id, &start, &last)) {
		all[0] = (struct iommufd_uapi_range){0, start - 1};
		all[1] = (struct iommufd_uapi_range){last + 1, UINT64_MAX};
		count = 2;
	}
	for (uint32_t i = 0; i < MIN(count, room); i++)
		out[i] = all[i];
	cmd->count = count;
	cmd->alignment = 4096;
	return count > room ? -EMSGSIZE : 0;
}

static int map(struct fake_kernel *fake, int ctx, uint32_t ioas_id, uint64_t iova, uint64_t size, bool file, int fd)
{
	struct fake_object *ioas = fake_object(fake, ctx, ioas_id, FAKE_IOAS);
	uint64_t start, last;

	if (!ioas)
		return -ENOENT;
	if (!size || (iova | size) % 4096)
		return -EINVAL;
	if (reserved(fake, ctx, ioas_id, &start, &last) && ranges_overlap(iova, size, start, last - start + 1))
		return -EINVAL;
	return fake_map(fake, &ioas->maps, &(struct fake_map){.iova = iova, .size = size, .file = file, .fd = fd},
			fake_ioas_pins(fake, ioas_id), true);
}

static int do_unmap(struct fake_kernel *fake, int ctx, struct iommufd_uapi_unmap *cmd)
{
	struct fake_object *ioas = fake_object(fake, ctx, cmd->ioas_id, FAKE_IOAS);
	uint64_t unmapped = 0;
	int rc;

	if (!ioas)
		return -ENOENT;
	rc = fake_unmap(fake, &ioas->maps, cmd->iova, cmd->length, &unmapped);
	if (rc == 0 && !unmapped && cmd->length != UINT64_MAX)
		rc = -ENOENT;
	cmd->length = unmapped;
	return rc;
}

static int do_hw_info(struct fake_kernel *fake, int ctx, struct iommufd_uapi_hw_info *cmd)
{
	struct fake_object *idev = fake_object(fake, ctx, cmd->dev_id, FAKE_IDEV);
	const struct fake_iommu *iommu;

	if (!idev || fake->devices[idev->device].iommu < 0)
		return -ENOENT;
	iommu = &fake->iommus[fake->devices[idev->device].iommu];
	memset((void *)(uintptr_t)cmd->data, 0, cmd->data_len);
	memcpy((void *)(uintptr_t)cmd->data, iommu->registers, MIN(cmd->data_len, sizeof(iommu->registers)));
	cmd->type = iommu->type;
	cmd->capabilities = 8 | (iommu->dirty ? IOMMUFD_UAPI_HW_CAP_DIRTY_TRACKING : 0);
	return 0;
}

bool fake_ioas_pins(const struct fake_kernel *fake, uint32_t ioas)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->objects[i].kind == FAKE_HWPT && fake->objects[i].ioas == ioas)
			return true;
	return false;
}

/* The first one of an IOAS pins what is mapped. */
static int do_hwpt_alloc(struct fake_kernel *fake, int ctx, struct iommufd_uapi_hwpt_alloc *cmd)
{
	struct fake_object *idev = fake_object(fake, ctx, cmd->dev_id, FAKE_IDEV), *hwpt;
	struct fake_object *ioas = fake_object(fake, ctx, cmd->pt_id, FAKE_IOAS);
	const struct fake_iommu *iommu;
	bool dirty = cmd->flags & IOMMUFD_UAPI_HWPT_DIRTY_TRACKING;

	if (!idev || fake->devices[idev->device].iommu < 0)
		return -ENOENT;
	if (!ioas || cmd->data_type != IOMMUFD_UAPI_HWPT_DATA_NONE || cmd->data_len)
		return -EINVAL;
	iommu = &fake->iommus[fake->devices[idev->device].iommu];
	if (dirty && !iommu->dirty)
		return -EOPNOTSUPP;
	if (dirty && iommu->refuse_dirty)
		return iommu->refuse_errno ?: -EOPNOTSUPP;
	if (!fake_ioas_pins(fake, cmd->pt_id) && !fake_may_lock(fake, fake_mapped_size(&ioas->maps), true))
		return -ENOMEM;
	fake->prefaulted_at_hwpt = fake->prefaulted - fake->prefaults;
	hwpt = fake_object_new(fake, ctx, FAKE_HWPT, &cmd->hwpt_id);
	hwpt->ioas = cmd->pt_id;
	hwpt->iommu = fake->devices[idev->device].iommu;
	hwpt->dirty = dirty;
	return 0;
}

static int do_set_dirty(struct fake_kernel *fake, int ctx, struct iommufd_uapi_set_dirty *cmd)
{
	struct fake_object *hwpt = fake_object(fake, ctx, cmd->hwpt_id, FAKE_HWPT);

	if (!hwpt)
		return -ENOENT;
	if (!hwpt->dirty)
		return -EOPNOTSUPP;
	hwpt->log.on = cmd->flags & IOMMUFD_UAPI_DIRTY_ENABLE;
	if (hwpt->log.on)
		hwpt->log.count = 0;
	return 0;
}

/* As Linux does: a range that is not mapped throughout is answered 0, and what follows the hole is dropped. */
static int do_get_dirty(struct fake_kernel *fake, int ctx, struct iommufd_uapi_get_dirty *cmd)
{
	struct fake_object *hwpt = fake_object(fake, ctx, cmd->hwpt_id, FAKE_HWPT);
	struct fake_object *ioas = hwpt ? fake_object(fake, ctx, hwpt->ioas, FAKE_IOAS) : NULL;
	uint64_t size = 0;

	if (!ioas)
		return -ENOENT;
	if (!hwpt->dirty)
		return -EOPNOTSUPP;
	if (!cmd->page_size || (cmd->iova | cmd->length) & (cmd->page_size - 1))
		return -EINVAL;
	while (size < cmd->length && fake_covered(&ioas->maps, cmd->iova + size, 4096))
		size += 4096;
	fake_log_report(&hwpt->log, cmd->iova, size, (unsigned long *)(uintptr_t)cmd->data);
	return 0;
}

static int do_map_file(struct fake_kernel *fake, int ctx, struct iommufd_uapi_map_file *cmd)
{
	const struct fake_fd *f = fake_fd(fake, cmd->fd);
	bool dma_buf = f && f->kind == FAKE_FD_DMABUF;
	struct fake_object *ioas = fake_object(fake, ctx, cmd->ioas_id, FAKE_IOAS);
	int rc;

	if (fake->no_map_file)
		return -ENOTTY;
	if (dma_buf && !fake_decodes(&fake->devices[f->index]))
		return -ENODEV;
	rc = map(fake, ctx, cmd->ioas_id, cmd->iova, cmd->length, true, cmd->fd);
	if (rc == 0 && dma_buf)
		ioas->maps.map[ioas->maps.count - 1].exporter = f->index + 1;
	return rc;
}

int fake_iommufd_ioctl(struct fake_kernel *fake, int ctx, unsigned long request, void *arg)
{
	struct iommufd_uapi_ioas_alloc *alloc = arg;
	struct iommufd_uapi_map *cmd = arg;

	switch (request) {
	case IOMMUFD_UAPI_DESTROY:
		return do_destroy(fake, ctx, arg);
	case IOMMUFD_UAPI_IOAS_ALLOC:
		fake_object_new(fake, ctx, FAKE_IOAS, &alloc->ioas_id);
		return 0;
	case IOMMUFD_UAPI_IOVA_RANGES:
		return do_ranges(fake, ctx, arg);
	case IOMMUFD_UAPI_MAP:
		return cmd->user_va % 4096 ? -EINVAL : map(fake, ctx, cmd->ioas_id, cmd->iova, cmd->length, false, -1);
	case IOMMUFD_UAPI_MAP_FILE:
		return do_map_file(fake, ctx, arg);
	case IOMMUFD_UAPI_UNMAP:
		return do_unmap(fake, ctx, arg);
	case IOMMUFD_UAPI_HWPT_ALLOC:
		return do_hwpt_alloc(fake, ctx, arg);
	case IOMMUFD_UAPI_GET_HW_INFO:
		return do_hw_info(fake, ctx, arg);
	case IOMMUFD_UAPI_SET_DIRTY:
		return do_set_dirty(fake, ctx, arg);
	case IOMMUFD_UAPI_GET_DIRTY:
		return do_get_dirty(fake, ctx, arg);
	}
	return -ENOTTY;
}

/* A group's devices share one page table; a HWPT made for another IOMMU does not fit: both EINVAL. */
int fake_cdev_attach(struct fake_kernel *fake, struct fake_device *device, struct vfio_uapi_attach *arg)
{
	int ctx = device->ctx - 1;
	struct fake_object *hwpt = fake_object(fake, ctx, arg->pt_id, FAKE_HWPT);
	struct fake_object *ioas = fake_object(fake, ctx, hwpt ? hwpt->ioas : arg->pt_id, FAKE_IOAS);
	const struct fake_iommu *iommu;

	if (!ioas)
		return -ENOENT;
	if (device->iommu < 0) {
		if (hwpt)
			return -EINVAL;
		device->pt = arg->pt_id;
		return 0;
	}
	if (hwpt && hwpt->iommu != device->iommu)
		return -EINVAL;
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->devices[i].used && fake->devices[i].group == device->group && fake->devices[i].pt &&
		    fake->devices[i].pt != arg->pt_id)
			return -EINVAL;
	iommu = &fake->iommus[device->iommu];
	for (size_t i = 0; iommu->reserved_last && i < ioas->maps.count; i++)
		if (ranges_overlap(ioas->maps.map[i].iova, ioas->maps.map[i].size, iommu->reserved_start,
				   iommu->reserved_last - iommu->reserved_start + 1))
			return -EADDRINUSE;
	device->pt = arg->pt_id;
	return 0;
}

void fake_idev_gone(struct fake_kernel *fake, struct fake_device *device)
{
	device->pt = 0;
	if (device->devid)
		fake->objects[device->devid - 1].kind = FAKE_FREE;
	device->devid = 0;
	device->ctx = 0;
}
