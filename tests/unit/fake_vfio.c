/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_vfio.h: the host and its devices, DMA, what is left. Calls are in fake_sys.c, groups and containers are
 * in fake_type1.c, sysfs in fake_sysfs.c, iommufd in fake_iommufd.c, what is inside a device in fake_pci.c, how it
 * migrates in fake_migration.c. */
#include "tests/unit/fake_vfio.h"

#include <poll.h>
#include <stdio.h>

extern const struct vfio_sys_ops fake_sys_ops;

void fake_die(const char *why)
{
	printf("Bail out! the fake kernel has run out of %s\n", why);
	exit(99);
}

struct fake_kernel *fake_new(void)
{
	struct fake_kernel *fake = calloc(1, sizeof(*fake));

	if (!fake)
		fake_die("memory");
	fake->sys.ops = &fake_sys_ops;
	pthread_mutex_init(&fake->lock, NULL);
	fake->type1_max_bitmap = MIB(256);
	fake->type1_avail = 65535;
	fake->page_sizes = 0x40201000;
	fake->locked_limit = UINT64_MAX;
	fake->fail_errno = -ENOMEM;
	return fake;
}

void fake_free(struct fake_kernel *fake)
{
	for (int i = 0; i < FAKE_MAX; i++)
		free(fake->devices[i].pci);
	pthread_mutex_destroy(&fake->lock);
	free(fake);
}

int fake_iommu(struct fake_kernel *fake, bool dirty)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (!fake->iommus[i].used) {
			fake->iommus[i] = (struct fake_iommu){.used = true, .dirty = dirty};
			return i;
		}
	fake_die("IOMMUs");
}

int fake_group(struct fake_kernel *fake)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (!fake->groups[i].used) {
			fake->groups[i] = (struct fake_group){.used = true};
			return i;
		}
	fake_die("groups");
}

struct fake_device *fake_device(struct fake_kernel *fake, const char *bdf, int group, int iommu)
{
	for (int i = 0; i < FAKE_MAX; i++) {
		struct fake_device *device = &fake->devices[i];

		if (device->used)
			continue;
		*device = (struct fake_device){.used = true, .cdev = true, .group = group, .iommu = iommu,
					       .driver = "vfio-pci", .regions = 9, .irqs = 5,
					       .flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
					       .log_max_ranges = 16, .log_page_size = 4096,
					       .migration.state = VFIO_DEVICE_STATE_RUNNING};
		snprintf(device->name, sizeof(device->name), "%s", bdf);
		return device;
	}
	fake_die("devices");
}

struct fake_device *fake_mdev(struct fake_kernel *fake, const char *uuid, int group)
{
	struct fake_device *device = fake_device(fake, uuid, group, -1);

	device->mdev = true;
	snprintf(device->driver, sizeof(device->driver), "vfio_mdev");
	return device;
}

void fake_log_add(struct fake_log *log, uint64_t page)
{
	for (size_t i = 0; i < log->count; i++)
		if (log->pages[i] == page)
			return;
	if (log->count == FAKE_PAGES)
		fake_die("dirty pages");
	log->pages[log->count++] = page;
}

void fake_log_report(struct fake_log *log, uint64_t iova, uint64_t size, unsigned long *bitmap)
{
	size_t kept = 0;

	for (size_t i = 0; i < log->count; i++) {
		uint64_t at = log->pages[i] * 4096;
		bool in = at >= iova && at - iova < size;

		if (in)
			bitmap[(at - iova) / 4096 / 64] |= 1ul << ((at - iova) / 4096 % 64);
		else
			log->pages[kept++] = log->pages[i];
	}
	log->count = kept;
}

void fake_revoke(struct fake_kernel *fake, const struct fake_device *device)
{
	for (int i = 0; i < FAKE_MAX; i++)
		for (size_t k = 0; k < fake->objects[i].maps.count; k++) {
			struct fake_map *map = &fake->objects[i].maps.map[k];

			map->revoked |= map->exporter == device - fake->devices + 1;
		}
}

bool fake_covered(const struct fake_maps *maps, uint64_t iova, uint64_t size)
{
	for (uint64_t done = 0; done < size;) {
		size_t i = 0;

		while (i < maps->count && (iova + done < maps->map[i].iova ||
					   iova + done - maps->map[i].iova >= maps->map[i].size))
			i++;
		if (i == maps->count || maps->map[i].revoked)
			return false;
		done = maps->map[i].iova + maps->map[i].size - iova;
	}
	return true;
}

uint64_t fake_mapped_size(const struct fake_maps *maps)
{
	uint64_t size = 0;

	for (size_t i = 0; i < maps->count; i++)
		size += maps->map[i].size;
	return size;
}

uint64_t fake_pinned(const struct fake_kernel *fake)
{
	uint64_t size = 0;

	for (int i = 0; i < FAKE_MAX; i++) {
		if (fake->containers[i].used && fake_container_pins(fake, i))
			size += fake_mapped_size(&fake->containers[i].maps);
		if (fake->objects[i].kind == FAKE_IOAS && fake_ioas_pins(fake, (uint32_t)i + 1))
			size += fake_mapped_size(&fake->objects[i].maps);
	}
	return size;
}

bool fake_may_lock(const struct fake_kernel *fake, uint64_t size, bool per_user)
{
	uint64_t locked = fake_pinned(fake) + (per_user ? fake->others_locked : 0);

	return size <= fake->locked_limit - MIN(locked, fake->locked_limit);
}

int fake_map(struct fake_kernel *fake, struct fake_maps *maps, const struct fake_map *map, bool pins, bool per_user)
{
	for (size_t i = 0; i < maps->count; i++)
		if (ranges_overlap(map->iova, map->size, maps->map[i].iova, maps->map[i].size))
			return -EEXIST;
	if (pins && !fake_may_lock(fake, map->size, per_user))
		return -ENOMEM;
	if (maps->count == FAKE_MAPS)
		fake_die("maps");
	if (fake->slow_map_ms)
		poll(NULL, 0, (int)fake->slow_map_ms);
	maps->map[maps->count++] = *map;
	return 0;
}

int fake_unmap(struct fake_kernel *fake, struct fake_maps *maps, uint64_t iova, uint64_t size, uint64_t *unmapped)
{
	uint64_t last = size == UINT64_MAX ? UINT64_MAX : iova + size - 1;
	size_t kept = 0;

	*unmapped = 0;
	for (size_t i = 0; i < maps->count; i++) {
		const struct fake_map *map = &maps->map[i];
		uint64_t map_last = map->iova + map->size - 1;

		if (map->iova <= last && iova <= map_last && (map->iova < iova || map_last > last))
			return -ENOENT;
	}
	for (size_t i = 0; i < maps->count; i++) {
		struct fake_map map = maps->map[i];

		if (map.iova >= iova && map.iova <= last)
			*unmapped += map.size;
		else
			maps->map[kept++] = map;
	}
	maps->count = kept;
	return 0;
}

/* Where a device's DMA is translated: its maps and the log that its IOMMU would keep. */
static struct fake_maps *maps_of(struct fake_kernel *fake, const struct fake_device *device, struct fake_log **log)
{
	struct fake_object *hwpt, *ioas;

	*log = NULL;
	if (device->ctx) {
		hwpt = fake_object(fake, device->ctx - 1, device->pt, FAKE_HWPT);
		ioas = fake_object(fake, device->ctx - 1, hwpt ? hwpt->ioas : device->pt, FAKE_IOAS);
		*log = hwpt ? &hwpt->log : NULL;
		return ioas ? &ioas->maps : NULL;
	}
	if (!device->fd || !fake->groups[device->group].container)
		return NULL;
	*log = &fake->containers[fake->groups[device->group].container - 1].log;
	return &fake->containers[fake->groups[device->group].container - 1].maps;
}

bool fake_mapped(struct fake_kernel *fake, const struct fake_device *device, uint64_t iova, uint64_t size)
{
	struct fake_log *log;
	struct fake_maps *maps = maps_of(fake, device, &log);

	return maps && fake_covered(maps, iova, size);
}

bool fake_dma(struct fake_kernel *fake, const struct fake_device *device, uint64_t iova, uint64_t size)
{
	struct fake_device *own = (struct fake_device *)device;
	struct fake_log *log;

	if (!fake_mapped(fake, device, iova, size) || device->migration.state == VFIO_DEVICE_STATE_STOP ||
	    device->migration.state == VFIO_DEVICE_STATE_STOP_COPY || device->migration.state == VFIO_DEVICE_STATE_RESUMING)
		return false;
	maps_of(fake, device, &log);
	for (uint64_t page = iova / 4096; page <= (iova + size - 1) / 4096; page++) {
		if (log && log->on)
			fake_log_add(log, page);
		for (size_t i = 0; own->log.on && i < own->log_range_count; i++)
			if (page * 4096 >= own->log_ranges[i].iova &&
			    page * 4096 - own->log_ranges[i].iova < own->log_ranges[i].length)
				fake_log_add(&own->log, page);
	}
	return true;
}

unsigned int fake_objects(const struct fake_kernel *fake, enum fake_object_kind kind)
{
	unsigned int n = 0;

	for (int i = 0; i < FAKE_MAX; i++)
		n += fake->objects[i].kind == kind;
	return n;
}

unsigned int fake_left(const struct fake_kernel *fake)
{
	unsigned int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fake->fds); i++)
		if (fake->fds[i].kind) {
			printf("# left: descriptor %zu of kind %d\n", i + FAKE_FD_BASE, fake->fds[i].kind);
			n++;
		}
	for (int i = 0; i < FAKE_MAX; i++) {
		const struct fake_device *device = &fake->devices[i];
		unsigned int here = fake->objects[i].kind != FAKE_FREE;

		here += fake->containers[i].used + fake->ctxs[i].used + !!fake->groups[i].opened;
		here += !!fake->groups[i].container + !!device->fd + !!device->ctx + device->log.on;
		if (here)
			printf("# left: %u at index %d (object kind %d)\n", here, i, fake->objects[i].kind);
		n += here;
	}
	if (fake->mapped_bytes)
		printf("# left: %llu bytes of regions mapped\n", (unsigned long long)fake->mapped_bytes);
	if (fake->prefaults)
		printf("# left: %u prefaults going on\n", fake->prefaults);
	return n + (fake->mapped_bytes != 0) + (fake->prefaults != 0);
}
