/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_vfio.h: groups and type1 containers, with the rules of drivers/vfio/{group,container,vfio_iommu_type1}.c. */
#include "tests/unit/fake_internal.h"

static bool viable(const struct fake_kernel *fake, int group)
{
	if (fake->groups[group].other_owner)
		return false;
	for (int i = 0; i < FAKE_MAX; i++) {
		const struct fake_device *device = &fake->devices[i];

		if (device->used && device->group == group && device->driver[0] && !strstr(device->driver, "vfio"))
			return false;
	}
	return true;
}

static const struct fake_iommu *iommu_of(const struct fake_kernel *fake, int group)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->devices[i].used && fake->devices[i].group == group && fake->devices[i].iommu >= 0)
			return &fake->iommus[fake->devices[i].iommu];
	return NULL;
}

bool fake_container_pins(const struct fake_kernel *fake, int container)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->groups[i].container == container + 1 && iommu_of(fake, i))
			return true;
	return false;
}

/* The reserved range of the groups in a container, if any. */
static const struct fake_iommu *reserving(const struct fake_kernel *fake, int container)
{
	for (int i = 0; i < FAKE_MAX; i++) {
		const struct fake_iommu *iommu = iommu_of(fake, i);

		if (fake->groups[i].container == container + 1 && iommu && iommu->reserved_last)
			return iommu;
	}
	return NULL;
}

static int set_container(struct fake_kernel *fake, int group, int fd)
{
	struct fake_group *g = &fake->groups[group];
	const struct fake_fd *f = fake_fd(fake, fd);
	const struct fake_iommu *iommu = iommu_of(fake, group);
	struct fake_container *c;

	if (!f || f->kind != FAKE_FD_CONTAINER)
		return -EBADF;
	if (g->container)
		return -EINVAL;
	if (!viable(fake, group))
		return -EPERM;
	c = &fake->containers[f->index];
	if (c->groups && c->noiommu != g->noiommu)
		return -EPERM;
	for (size_t i = 0; c->type1 && iommu && iommu->reserved_last && i < c->maps.count; i++)
		if (ranges_overlap(c->maps.map[i].iova, c->maps.map[i].size, iommu->reserved_start,
				   iommu->reserved_last - iommu->reserved_start + 1))
			return -EINVAL;
	g->container = f->index + 1;
	c->noiommu = g->noiommu;
	c->groups++;
	return 0;
}

/* Leaves the container; the last group out takes the page table and all maps with it. */
void fake_unset_container(struct fake_kernel *fake, int group)
{
	struct fake_group *g = &fake->groups[group];
	struct fake_container *c = &fake->containers[g->container - 1];
	uint64_t unmapped;

	for (int i = 0; i < FAKE_MAX; i++)
		fake->detached_masters += fake->devices[i].group == group && fake_masters(&fake->devices[i]);
	g->container = 0;
	if (--c->groups)
		return;
	fake_unmap(fake, &c->maps, 0, UINT64_MAX, &unmapped);
	c->type1 = false;
	c->log = (struct fake_log){0};
	if (!c->fd_open)
		c->used = false;
}

static int get_device(struct fake_kernel *fake, int group, const char *name)
{
	for (int i = 0; i < FAKE_MAX; i++) {
		struct fake_device *device = &fake->devices[i];
		size_t len = strlen(device->name);
		char token[37];

		if (!device->used || device->group != group || strncmp(name, device->name, len) != 0 ||
		    (name[len] && name[len] != ' ') || !strstr(device->driver, "vfio"))
			continue;
		fake_uuid_text(device->token, token);
		if (name[len] && !device->token_wanted)
			return -EINVAL;
		if (device->token_wanted && (strncmp(name + len, " vf_token=", 10) != 0 ||
					     strcmp(name + len + 10, token) != 0))
			return -EACCES;
		if (!fake->groups[group].container || (!fake->containers[fake->groups[group].container - 1].type1 &&
						       !fake->groups[group].noiommu))
			return -EINVAL;
		if (device->fd)
			return -EBUSY;
		device->fd = fake_fd_new(fake, FAKE_FD_DEVICE, i);
		fake->prefaults_at_open = fake->prefaults;
		fake_masters_off(device);
		return device->fd;
	}
	return -ENODEV;
}

int fake_group_ioctl(struct fake_kernel *fake, int group, unsigned long request, void *arg)
{
	struct vfio_group_status *status = arg;

	switch (request) {
	case VFIO_GROUP_GET_STATUS:
		status->flags = 0;
		if (viable(fake, group))
			status->flags |= VFIO_GROUP_FLAGS_VIABLE;
		if (fake->groups[group].container)
			status->flags |= VFIO_GROUP_FLAGS_CONTAINER_SET;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		return set_container(fake, group, *(const int *)arg);
	case VFIO_GROUP_UNSET_CONTAINER:
		if (!fake->groups[group].container)
			return -EINVAL;
		for (int i = 0; i < FAKE_MAX; i++)
			if (fake->devices[i].used && fake->devices[i].group == group && fake->devices[i].fd)
				return -EBUSY;
		fake_unset_container(fake, group);
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		return get_device(fake, group, arg);
	}
	return -ENOTTY;
}

/* The information chain: IOVA ranges, migration, mappings left. */
static int get_info(struct fake_kernel *fake, int index, struct vfio_iommu_type1_info *info)
{
	struct vfio_iommu_type1_info_cap_iova_range iova = {
		.header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1},
		.nr_iovas = 1,
	};
	struct vfio_iova_range ranges[2] = {{0, UINT64_MAX}};
	struct vfio_iommu_type1_info_cap_migration migration = {
		.header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, .version = 1},
		.pgsize_bitmap = fake->page_sizes & -fake->page_sizes,
		.max_dirty_bitmap_size = fake->type1_max_bitmap,
	};
	struct vfio_iommu_type1_info_dma_avail avail = {
		.header = {.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, .version = 1},
		.avail = fake->type1_avail - (uint32_t)fake->containers[index].maps.count,
	};
	const struct fake_iommu *iommu = reserving(fake, index);
	char chain[256];
	size_t size = sizeof(*info), at = 0;

	if (iommu) {
		iova.nr_iovas = 2;
		ranges[0].end = iommu->reserved_start - 1;
		ranges[1] = (struct vfio_iova_range){iommu->reserved_last + 1, UINT64_MAX};
	}
	/* Every capability says where the next one is, from the start of the structure. */
#define ADD(cap, header_)                                                                          \
	do {                                                                                       \
		header_.next = (uint32_t)(size + at + sizeof(cap));                                \
		memcpy(chain + at, &cap, sizeof(cap));                                             \
		at += sizeof(cap);                                                                 \
	} while (0)
	if (fake->type1_dirty)
		ADD(migration, migration.header);
	if (fake->type1_avail)
		ADD(avail, avail.header);
	memcpy(chain + at, &iova, sizeof(iova));
	memcpy(chain + at + sizeof(iova), ranges, sizeof(ranges));
	at += sizeof(iova) + sizeof(ranges);
#undef ADD
	info->flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info->iova_pgsizes = fake->page_sizes;
	info->cap_offset = 0;
	if (info->argsz < size + at) {
		info->argsz = (uint32_t)(size + at);
		return 0;
	}
	memcpy((char *)info + size, chain, at);
	info->cap_offset = (uint32_t)size;
	return 0;
}

static int map_dma(struct fake_kernel *fake, int index, const struct vfio_iommu_type1_dma_map *map)
{
	struct fake_container *c = &fake->containers[index];
	const struct fake_iommu *iommu = reserving(fake, index);

	if (!map->size || (map->size | map->iova | map->vaddr) % 4096)
		return -EINVAL;
	if (fake->type1_avail && c->maps.count >= fake->type1_avail)
		return -ENOSPC;
	if (iommu && ranges_overlap(map->iova, map->size, iommu->reserved_start,
				    iommu->reserved_last - iommu->reserved_start + 1))
		return -EINVAL;
	return fake_map(fake, &c->maps, &(struct fake_map){.iova = map->iova, .size = map->size, .fd = -1},
			fake_container_pins(fake, index), false);
}

static int unmap_dma(struct fake_kernel *fake, int index, struct vfio_iommu_type1_dma_unmap *unmap)
{
	struct fake_container *c = &fake->containers[index];
	uint64_t unmapped = 0;
	int rc = fake_unmap(fake, &c->maps, unmap->iova, unmap->size, &unmapped);

	unmap->size = unmapped;
	return rc == -ENOENT ? -EINVAL : rc;
}

/* Cutting a mapping is EINVAL; a container with an IOMMU group answers that everything mapped is dirty. */
static int get_bitmap(struct fake_kernel *fake, int index, const struct vfio_iommu_type1_dirty_bitmap_get *get)
{
	const struct fake_container *c = &fake->containers[index];
	bool iommu = fake_container_pins(fake, index);

	if (!c->log.on || get->bitmap.pgsize != (fake->page_sizes & -fake->page_sizes))
		return -EINVAL;
	memset(get->bitmap.data, 0, get->bitmap.size);
	for (size_t i = 0; i < c->maps.count; i++) {
		const struct fake_map *map = &c->maps.map[i];

		if (!ranges_overlap(map->iova, map->size, get->iova, get->size))
			continue;
		if (map->iova < get->iova || map->iova + map->size > get->iova + get->size)
			return -EINVAL;
		for (uint64_t at = map->iova; iommu && at < map->iova + map->size; at += 4096)
			((unsigned long *)get->bitmap.data)[(at - get->iova) / 4096 / 64] |=
				1ul << ((at - get->iova) / 4096 % 64);
	}
	if (!iommu)
		fake_log_report(&fake->containers[index].log, get->iova, get->size, (unsigned long *)get->bitmap.data);
	return 0;
}

static int dirty_pages(struct fake_kernel *fake, int index, struct vfio_iommu_type1_dirty_bitmap *dirty)
{
	struct fake_log *log = &fake->containers[index].log;

	switch (dirty->flags) {
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
		log->on = true;
		return 0;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
		*log = (struct fake_log){0};
		return 0;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
		return get_bitmap(fake, index, (const void *)dirty->data);
	}
	return -EINVAL;
}

int fake_container_ioctl(struct fake_kernel *fake, int index, unsigned long request, void *arg)
{
	struct fake_container *c = &fake->containers[index];

	switch (request) {
	case VFIO_GET_API_VERSION:
		return VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return (uintptr_t)arg == (c->noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU) ||
		       (!c->groups && (uintptr_t)arg == VFIO_NOIOMMU_IOMMU);
	case VFIO_SET_IOMMU:
		if (!c->groups || c->type1)
			return -EINVAL;
		if ((uintptr_t)arg != (c->noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU))
			return -ENODEV;
		c->type1 = true;
		return 0;
	}
	if (!c->type1)
		return -EINVAL;
	if (c->noiommu)
		return -ENOTTY;
	switch (request) {
	case VFIO_IOMMU_GET_INFO:
		return get_info(fake, index, arg);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(fake, index, arg);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(fake, index, arg);
	case VFIO_IOMMU_DIRTY_PAGES:
		return dirty_pages(fake, index, arg);
	}
	return -ENOTTY;
}
