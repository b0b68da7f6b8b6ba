/* SPDX-License-Identifier: Apache-2.0 */
/* See region.h. */
#include "vfio/region.h"

#include <sys/mman.h>

#define PAGE 4096ull
#define MAX_INFO 65536u

/* Region information with its capabilities; the caller frees it. NULL with *code on failure. */
static struct vfio_region_info *vfio_region_get_info(const struct vfio_device *device, uint32_t index, int *code)
{
	uint32_t size = sizeof(struct vfio_region_info);

	for (;;) {
		struct vfio_region_info *info = calloc(1, size);

		if (!info) {
			*code = -ENOMEM;
			return NULL;
		}
		info->argsz = size;
		info->index = index;
		*code = vfio_sys_ioctl(device->sys, device->fd, VFIO_DEVICE_GET_REGION_INFO, info);
		if (*code >= 0 && info->argsz <= size)
			return info;
		size = info->argsz;
		free(info);
		if (*code < 0 || size > MAX_INFO) {
			*code = *code < 0 ? *code : -EIO;
			return NULL;
		}
	}
}

static const struct vfio_info_cap_header *vfio_region_find_cap(const struct vfio_region_info *info, uint16_t id)
{
	uint32_t offset = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

	/* A chain cannot have more links than headers fit. */
	for (uint32_t i = 0; offset && i < info->argsz / sizeof(struct vfio_info_cap_header); i++) {
		const struct vfio_info_cap_header *cap;

		if (offset > info->argsz - sizeof(*cap))
			return NULL;
		cap = (const void *)((const char *)info + offset);
		if (cap->id == id)
			return cap;
		offset = cap->next;
	}
	return NULL;
}

static int vfio_region_by_offset(const void *a, const void *b)
{
	const struct vfio_area *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Finds the parts that can be mapped: those of the sparse capability, or all. */
static void vfio_region_find_areas(struct vfio_region *region, const struct vfio_region_info *info)
{
	const struct vfio_region_info_cap_sparse_mmap *sparse;
	size_t room;

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return;
	sparse = (const void *)vfio_region_find_cap(info, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
	if (!sparse) {
		region->areas[0] = (struct vfio_area){.offset = 0, .size = align_up(region->size, PAGE)};
		region->area_count = 1;
		return;
	}
	room = info->argsz - (size_t)((const char *)sparse - (const char *)info);
	room = room < sizeof(*sparse) ? 0 : (room - sizeof(*sparse)) / sizeof(sparse->areas[0]);
	for (uint32_t i = 0; i < room && i < sparse->nr_areas && region->area_count < VFIO_REGION_AREAS; i++) {
		uint64_t offset = sparse->areas[i].offset, size = align_down(sparse->areas[i].size, PAGE);

		if (size && offset % PAGE == 0 && offset < region->size && size <= region->size - offset)
			region->areas[region->area_count++] = (struct vfio_area){.offset = offset, .size = size};
	}
	qsort(region->areas, region->area_count, sizeof(region->areas[0]), vfio_region_by_offset);
	for (size_t i = 1; i < region->area_count; i++)
		if (region->areas[i].offset < region->areas[i - 1].offset + region->areas[i - 1].size)
			region->area_count = i; /* they overlap: the rest is trapped */
}

int vfio_region_get(const struct vfio_device *device, uint32_t index, struct vfio_region *ret, struct err *err)
{
	struct vfio_region_info *info;
	int code;

	*ret = (struct vfio_region){.device = device, .index = index};
	if (index >= device->num_regions)
		return 0;
	info = vfio_region_get_info(device, index, &code);
	/* This kind of device cannot have the region. */
	if (!info && code == -EINVAL)
		return 0;
	if (!info)
		return err_sys(err, code, "vfio %s: region %u", device->host.name, index);
	ret->flags = info->flags;
	ret->size = info->size;
	ret->offset = info->offset;
	if (ret->size)
		vfio_region_find_areas(ret, info);
	free(info);
	return 0;
}

void vfio_region_exclude(struct vfio_region *region, uint64_t offset, uint64_t size)
{
	uint64_t start = align_down(offset, PAGE), end = align_up(offset + size, PAGE);

	for (size_t i = 0; i < region->area_count; i++) {
		struct vfio_area *area = &region->areas[i];
		uint64_t area_end = area->offset + area->size;
		struct vfio_area behind = {.offset = end, .size = area_end > end ? area_end - end : 0};

		if (!ranges_overlap(area->offset, area->size, start, end - start))
			continue;
		area->size = start > area->offset ? start - area->offset : 0;
		if (!area->size && behind.size) {
			*area = behind;
		} else if (behind.size && region->area_count < VFIO_REGION_AREAS) {
			memmove(area + 2, area + 1, (region->area_count - i - 1) * sizeof(*area));
			area[1] = behind;
			region->area_count++;
			i++;
		} else if (!area->size) {
			memmove(area, area + 1, (region->area_count - i - 1) * sizeof(*area));
			region->area_count--;
			i--;
		}
	}
}

/* Reserves address space for an area, aligned as its offset is, up to 1 GiB. */
static void *vfio_region_reserve(const struct vfio_area *area)
{
	uint64_t align = PAGE, room;
	char *base, *start;

	while (align < GIB(1) && align < area->size)
		align <<= 1;
	room = area->size + align;
	base = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	start = base + ((area->offset - (uintptr_t)base) & (align - 1));
	if (start > base)
		munmap(base, (size_t)(start - base));
	if (start + area->size < base + room)
		munmap(start + area->size, (size_t)(base + room - (start + area->size)));
	return start;
}

void vfio_region_map(struct vfio_region *region)
{
	const struct vfio_sys *sys = region->device->sys;
	int prot = (region->flags & VFIO_REGION_INFO_FLAG_READ ? PROT_READ : 0) |
		   (region->flags & VFIO_REGION_INFO_FLAG_WRITE ? PROT_WRITE : 0);

	for (size_t i = 0; i < region->area_count; i++) {
		struct vfio_area *area = &region->areas[i];
		void *at = vfio_region_reserve(area), *mapped;

		if (!at)
			continue;
		if (sys->ops->mmap(sys, at, area->size, prot, MAP_SHARED | MAP_FIXED, region->device->fd,
				   region->offset + area->offset, &mapped) < 0)
			munmap(at, area->size);
		else
			area->host = mapped;
	}
}

void vfio_region_unmap(struct vfio_region *region)
{
	for (size_t i = 0; i < region->area_count; i++) {
		struct vfio_area *area = &region->areas[i];

		if (area->host)
			region->device->sys->ops->munmap(region->device->sys, area->host, area->size);
		area->host = NULL;
	}
}

int vfio_region_read(const struct vfio_region *region, uint64_t offset, void *data, size_t len)
{
	const struct vfio_device *device = region->device;
	ssize_t done = device->sys->ops->pread(device->sys, device->fd, data, len, region->offset + offset);

	return done == (ssize_t)len ? 0 : done < 0 ? (int)done : -EIO;
}

int vfio_region_write(const struct vfio_region *region, uint64_t offset, const void *data, size_t len)
{
	const struct vfio_device *device = region->device;
	ssize_t done = device->sys->ops->pwrite(device->sys, device->fd, data, len, region->offset + offset);

	return done == (ssize_t)len ? 0 : done < 0 ? (int)done : -EIO;
}
