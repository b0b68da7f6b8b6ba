/* SPDX-License-Identifier: Apache-2.0 */
/* See space.h. */
#include "vfio/space.h"

#include "core/monotonic.h"
#include "core/probe.h"

#include <poll.h>
#include <stdio.h>

static const struct guest_memory_listener_ops listener_ops;

int vfio_space_create(const struct vfio_space_options *options, struct vfio_space **ret, struct err *err)
{
	struct vfio_space *space;
	int rc;

	space = calloc(1, sizeof(*space));
	if (!space)
		return err_sys(err, -ENOMEM, "vfio");
	space->sys = options->sys ?: vfio_sys_host();
	space->log = options->log;
	space->memory = options->memory;
	if (options->hypervisor)
		space->hypervisor = *options->hypervisor;
	space->logs = (struct vfio_dirty_logs){
		.ram = &space->ram, .memory = space->memory, .set = options->dirty, .lock = options->lock,
		.log = space->log,
	};
	vfio_dirty_logs_init(&space->logs);
	space->lock = options->lock;
	space->cancel_fd = options->cancel_fd ? *options->cancel_fd : -1;
	space->iommufd = -1;
	space->listener.ops = &listener_ops;
	rc = guest_memory_listen(space->memory, &space->listener, err);
	if (rc < 0) {
		free(space);
		return rc;
	}
	if (options->iommufd)
		space->iommufd = take_fd(options->iommufd);
	*ret = space;
	return 0;
}

void vfio_space_destroy(struct vfio_space *space)
{
	if (!space)
		return;
	guest_memory_unlisten(space->memory, &space->listener);
	vfio_sys_close(space->sys, &space->iommufd);
	free(space);
}

bool vfio_space_is_mapped(const struct vfio_space *space)
{
	return space->containers;
}

int vfio_space_add_to_hypervisor(struct vfio_space *space, int fd, struct err *err)
{
	return space->hypervisor.add ? space->hypervisor.add(space->hypervisor.opaque, fd, err) : 0;
}

void vfio_space_remove_from_hypervisor(struct vfio_space *space, int fd)
{
	if (space->hypervisor.remove)
		space->hypervisor.remove(space->hypervisor.opaque, fd);
}

void vfio_space_lock(struct vfio_space *space)
{
	if (space->lock)
		pthread_mutex_lock(space->lock);
}

void vfio_space_unlock(struct vfio_space *space)
{
	if (space->lock)
		pthread_mutex_unlock(space->lock);
}

/* ---- Progress ---- */

static void vfio_space_begin_step(struct vfio_space *space, const char *what)
{
	__atomic_store_n(&space->progress.done, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&space->progress.what, what, __ATOMIC_RELAXED);
}

struct vfio_progress vfio_space_progress(const struct vfio_space *space)
{
	return (struct vfio_progress){
		.what = __atomic_load_n(&space->progress.what, __ATOMIC_RELAXED),
		.done = __atomic_load_n(&space->progress.done, __ATOMIC_RELAXED),
		.total = guest_memory_size(space->memory),
	};
}

static int vfio_space_check_cancelled(const struct vfio_space *space, struct err *err)
{
	struct pollfd fd = {.fd = space->cancel_fd, .events = POLLIN};

	return poll(&fd, 1, 0) > 0 ? err_set(err, -ECANCELED, "cancelled") : 0;
}

/* ---- Mapping ---- */

/* What this process has pinned, or tries to, in containers of this kind, each of which counts all of it. */
static uint64_t vfio_space_pinned(const struct vfio_space *space, const struct vfio_container *with)
{
	uint64_t memory = 0, times = 1;

	for (size_t i = 0; i < space->ram.count; i++)
		memory += space->ram.regions[i].region.size;
	for (const struct vfio_container *c = space->containers; c; c = c->next)
		times += c != with && c->ops == with->ops && c->pins;
	return memory * times;
}

bool vfio_space_explain_limit(const struct vfio_space *space, const struct vfio_container *container, struct err *err)
{
	uint64_t limit = space->sys->ops->locked_limit(space->sys), need = vfio_space_pinned(space, container);
	bool per_user = container->ops->locks_per_user;
	char counted[96] = "";

	/* What other processes of the user have locked is not to be seen. */
	if (limit == UINT64_MAX || (!per_user && limit >= need))
		return false;
	if (per_user)
		snprintf(counted, sizeof(counted), ", where all that processes of this user have locked counts, also for other machines");
	err_set(err, -ENOMEM, "devices need %llu MiB of guest memory locked, and this process may lock %llu MiB%s: raise it with "
		"'ulimit -l unlimited' (LimitMEMLOCK=infinity in a service), or run as root",
		(unsigned long long)(need >> 20), (unsigned long long)(limit >> 20), counted);
	return true;
}

static int vfio_space_explain_map(const struct vfio_space *space, const struct vfio_container *container,
				  const struct vfio_dma *dma, int rc, struct err *err)
{
	if (rc == -ENOMEM && container->pins && vfio_space_explain_limit(space, container, err))
		return rc;
	if (rc == -ENOSPC)
		return err_set(err, rc, "the kernel's limit of DMA mappings is reached at guest address 0x%llx: raise it with "
			       "'echo 1000000 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit'",
			       (unsigned long long)dma->iova);
	return err_sys(err, rc, "map guest memory 0x%llx-0x%llx for devices (%s)", (unsigned long long)dma->iova,
		       (unsigned long long)(dma->iova + dma->size - 1), container->ops->name);
}

/* Logs progress once a second, from the first second on. */
struct pace {
	uint64_t begin_ns, logged_ns;
};

static void vfio_space_log_progress(struct pace *progress, const struct log *log, uint64_t done, uint64_t total)
{
	uint64_t now = monotonic_ns();
	double gib = (double)done / (double)GIB(1);

	if (!progress->begin_ns)
		progress->begin_ns = progress->logged_ns = now;
	if (now - progress->logged_ns < 1000000000ull)
		return;
	progress->logged_ns = now;
	log_info(log, "map guest memory for devices: %.1f of %.1f GiB, %.1f GiB/s", gib, (double)total / (double)GIB(1),
		 gib / ((double)(now - progress->begin_ns) / 1e9));
}

static void vfio_space_unmap_range(struct vfio_space *space, struct vfio_container *container, uint64_t gpa,
				   uint64_t size)
{
	int rc;

	if (!size)
		return;
	PROBE(vfio_unmap, container->ops->name, gpa, size);
	rc = container->ops->unmap(container, gpa, size);
	if (rc < 0 && rc != -ENOENT)
		log_warn(space->log, "vfio: unmap guest memory 0x%llx-0x%llx (%s): %s", (unsigned long long)gpa,
			 (unsigned long long)(gpa + size - 1), container->ops->name, strerrordesc_np(-rc));
}

/* Maps all pieces of a region or none. */
static int vfio_space_map_pieces(struct vfio_space *space, struct vfio_container *container,
				 const struct vfio_ram_region *ram, struct err *err)
{
	struct pace pace = {0};
	uint64_t gpa = ram->region.gpa;

	for (uint64_t at = gpa, next; at < vfio_ram_end(ram); at = next) {
		uint64_t offset = at - gpa;
		struct vfio_dma dma = {.iova = at, .host = (char *)ram->region.host + offset, .fd = ram->region.fd,
				       .fd_offset = ram->region.fd_offset + offset};
		int rc = vfio_space_check_cancelled(space, err);

		vfio_space_log_progress(&pace, space->log, offset, ram->region.size);
		next = vfio_ram_piece_end(ram, at);
		dma.size = next - at;
		if (rc == 0) {
			PROBE(vfio_map, container->ops->name, dma.iova, dma.size);
			rc = container->ops->map(container, &dma);
			if (rc < 0)
				vfio_space_explain_map(space, container, &dma, rc, err);
		}
		if (rc < 0) {
			vfio_space_unmap_range(space, container, gpa, offset);
			return rc;
		}
		__atomic_fetch_add(&space->progress.done, dma.size, __ATOMIC_RELAXED);
	}
	return 0;
}

/*
 * Finds the first byte of [gpa, last] that is in no range of the container, and the last byte of that hole. Without
 * ranges it is left to the kernel to refuse a map.
 */
static bool vfio_space_find_hole(const struct vfio_container *container, uint64_t gpa, uint64_t last, uint64_t *hole,
				 uint64_t *hole_last)
{
	*hole = gpa;
	*hole_last = UINT64_MAX;
	for (size_t i = 0; i < container->range_count; i++) {
		const struct iommufd_uapi_range *range = &container->ranges[i];

		if (range->last < *hole)
			continue;
		if (range->start > *hole) {
			*hole_last = range->start - 1;
			break;
		}
		if (range->last >= last)
			return false;
		*hole = range->last + 1;
	}
	return container->range_count && *hole <= last;
}

static int vfio_space_check_range(const struct vfio_container *container, const struct guest_region *region,
				  struct err *err)
{
	uint64_t last = region->gpa + region->size - 1, hole, hole_last;

	if (!vfio_space_find_hole(container, region->gpa, last, &hole, &hole_last))
		return 0;
	return err_set(err, -EINVAL, "guest memory 0x%llx-0x%llx covers 0x%llx-0x%llx, which the host's IOMMU cannot map: use less "
		       "--memory, or another machine for this device", (unsigned long long)region->gpa,
		       (unsigned long long)last, (unsigned long long)hole, (unsigned long long)MIN(last, hole_last));
}

static int vfio_space_check_ranges(const struct vfio_space *space, const struct vfio_container *container,
				   struct err *err)
{
	for (size_t i = 0; i < space->ram.count; i++) {
		int rc = vfio_space_check_range(container, &space->ram.regions[i].region, err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Over a file, a sample would see the file's pages and not whether they have been copied. */
static int vfio_space_populate_begin(struct vfio_space *space, struct vfio_ram_region *ram, struct err *err)
{
	return space->sys->ops->prefault_begin(space->sys, ram->region.host, ram->region.size, !ram->region.base,
					       "prefault guest memory for devices", space->log, &space->progress.done,
					       &ram->prefault, err);
}

static int vfio_space_populate_end(struct vfio_space *space, struct vfio_ram_region *ram, bool wait, struct err *err)
{
	return space->sys->ops->prefault_end(space->sys, take_ptr(ram->prefault), wait, space->cancel_fd, err);
}

/* Pinning absent pages is slow, because the kernel faults in one after the other: prefault them in parallel first. */
static int vfio_space_populate_region(struct vfio_space *space, struct vfio_ram_region *ram, struct err *err)
{
	int rc = 0;

	if (ram->populated)
		return 0;
	if (!ram->prefault)
		rc = vfio_space_populate_begin(space, ram, err);
	if (rc == 0)
		rc = vfio_space_populate_end(space, ram, true, err);
	ram->populated = rc == 0;
	return rc;
}

int vfio_space_populate(struct vfio_space *space, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < space->ram.count && rc == 0; i++)
		rc = vfio_space_populate_region(space, &space->ram.regions[i], err);
	return rc;
}

/* Asks for room for all of it: how much of a region is there already is the machine's to know. */
static int vfio_space_check_room(const struct vfio_space *space, struct err *err)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < space->ram.count; i++)
		bytes += space->ram.regions[i].populated ? 0 : space->ram.regions[i].region.size;
	return bytes && space->hypervisor.need_memory ?
		       space->hypervisor.need_memory(space->hypervisor.opaque, bytes, err) : 0;
}

int vfio_space_populate_ahead(struct vfio_space *space, struct err *err)
{
	int rc = vfio_space_check_room(space, err);

	vfio_space_begin_step(space, "prefault");
	for (size_t i = 0; i < space->ram.count && rc == 0; i++) {
		struct vfio_ram_region *ram = &space->ram.regions[i];

		if (!ram->populated)
			rc = vfio_space_populate_begin(space, ram, err);
	}
	return rc;
}

void vfio_space_populate_stop(struct vfio_space *space)
{
	for (size_t i = 0; i < space->ram.count; i++)
		vfio_space_populate_end(space, &space->ram.regions[i], false, NULL);
}

static int vfio_space_map_ram(struct vfio_space *space, struct vfio_container *container, struct vfio_ram_region *ram,
			      struct err *err)
{
	int rc = container->pins ? vfio_space_populate_region(space, ram, err) : 0;

	return rc < 0 ? rc : vfio_space_map_pieces(space, container, ram, err);
}

static void vfio_space_unmap_ram(struct vfio_space *space, struct vfio_container *container,
				 const struct vfio_ram_region *ram)
{
	vfio_space_unmap_range(space, container, ram->region.gpa, ram->region.size);
}

/* ---- Guest memory ---- */

static struct vfio_space *vfio_space_of(struct guest_memory_listener *listener)
{
	return container_of(listener, struct vfio_space, listener);
}

static void vfio_space_region_remove(struct guest_memory_listener *listener, const struct guest_region *region)
{
	struct vfio_space *space = vfio_space_of(listener);
	struct vfio_ram_region *ram = vfio_ram_find(&space->ram, region->gpa);

	if (!ram)
		return;
	for (struct vfio_container *container = space->containers; container; container = container->next)
		vfio_space_unmap_ram(space, container, ram);
	vfio_ram_remove(&space->ram, ram);
}

static int vfio_space_region_add(struct guest_memory_listener *listener, const struct guest_region *region,
				 struct err *err)
{
	struct vfio_space *space = vfio_space_of(listener);
	struct vfio_container *container, *undo;
	struct vfio_ram_region *ram;
	int rc = 0;

	for (container = space->containers; container && rc == 0; container = container->next)
		rc = vfio_space_check_range(container, region, err);
	if (rc < 0)
		return rc;
	ram = vfio_ram_insert(&space->ram, region);
	if (!ram)
		return err_set(err, -ENOSPC, "vfio: more than %d regions of guest memory", VFIO_MAX_RAM);
	for (container = space->containers; container; container = container->next) {
		rc = vfio_space_map_ram(space, container, ram, err);
		if (rc == 0)
			continue;
		for (undo = space->containers; undo != container; undo = undo->next)
			vfio_space_unmap_ram(space, undo, ram);
		vfio_ram_remove(&space->ram, ram);
		return rc;
	}
	return 0;
}

static const struct guest_memory_listener_ops listener_ops = {.add = vfio_space_region_add,
							      .remove = vfio_space_region_remove};

/* ---- Containers ---- */

void vfio_container_set_ranges(struct vfio_container *container, struct iommufd_uapi_range *ranges, size_t count)
{
	vfio_space_lock(container->space);
	free(container->ranges);
	container->ranges = ranges;
	container->range_count = count;
	vfio_space_unlock(container->space);
}

static int vfio_space_check_limit(const struct vfio_space *space, const struct vfio_container *container,
				  struct err *err)
{
	uint64_t needed = 0;

	for (size_t i = 0; i < space->ram.count; i++)
		needed += vfio_ram_pieces(&space->ram.regions[i]);
	if (!container->map_limit || needed <= container->map_limit)
		return 0;
	return err_set(err, -ENOSPC, "guest memory takes %llu DMA mappings and the kernel allows %llu: raise it with 'echo "
		       "%llu > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit'", (unsigned long long)needed,
		       (unsigned long long)container->map_limit, (unsigned long long)(needed + 1024));
}

int vfio_space_add_container(struct vfio_space *space, struct vfio_container *container, struct err *err)
{
	int rc = vfio_space_check_ranges(space, container, err);

	if (rc == 0)
		rc = vfio_space_check_limit(space, container, err);
	if (rc == 0 && container->pins)
		rc = vfio_space_populate(space, err);
	vfio_space_begin_step(space, "map");
	for (size_t i = 0; rc == 0 && i < space->ram.count; i++)
		rc = vfio_space_map_pieces(space, container, &space->ram.regions[i], err);
	if (rc < 0)
		return rc;
	vfio_space_lock(space);
	container->next = space->containers;
	space->containers = container;
	vfio_space_unlock(space);
	return 0;
}

void vfio_space_remove_container(struct vfio_space *space, struct vfio_container *container)
{
	struct vfio_container **link = &space->containers;

	vfio_space_lock(space);
	while (*link && *link != container)
		link = &(*link)->next;
	if (*link)
		*link = container->next;
	vfio_space_unlock(space);
	vfio_container_set_ranges(container, NULL, 0);
	/* Pages may be given back from now on. */
	for (size_t i = 0; i < space->ram.count && !space->containers; i++)
		space->ram.regions[i].populated = false;
}

/* ---- BARs ---- */

/* Whether the device is one that reaches the BAR. */
static bool vfio_space_is_peer(const struct vfio_bar *bar, const struct vfio_device *device)
{
	return device != bar->device && !device->no_p2p && !bar->device->no_p2p;
}

/* The devices in the container that reach the BAR. It is mapped there if there are any. */
static unsigned int vfio_space_peers(const struct vfio_space *space, const struct vfio_container *container,
				     const struct vfio_bar *bar)
{
	unsigned int count = 0;

	for (const struct vfio_device *device = space->devices; device; device = device->next)
		count += device->container == container && vfio_space_is_peer(bar, device);
	return count;
}

static void vfio_space_refused_bar(struct vfio_space *space, const struct vfio_bar *bar, int rc)
{
	if (space->warned_bars)
		return;
	space->warned_bars = true;
	log_warn(space->log, "vfio %s: other devices cannot reach its BAR %u at 0x%llx (peer to peer): %s; everything "
		 "else works, and p2p=off leaves this out", bar->device->host.name, bar->region,
		 (unsigned long long)bar->gpa,
		 rc == -ENOTTY ? "this kernel gives no dma-buf of a BAR" :
		 rc == -ERANGE ? "the host's IOMMU cannot map there" : strerrordesc_np(-rc));
}

static void vfio_space_map_bar_in(struct vfio_space *space, struct vfio_container *container,
				  const struct vfio_bar *bar)
{
	uint64_t hole, hole_last;
	int rc = vfio_space_find_hole(container, bar->gpa, bar->gpa + bar->size - 1, &hole, &hole_last) ?
			 -ERANGE : container->ops->map_bar(container, bar);

	/* It may be mapped already: see vfio_device_try. */
	if (rc < 0 && rc != -EEXIST)
		vfio_space_refused_bar(space, bar, rc);
}

static void vfio_space_unmap_bar_in(struct vfio_space *space, struct vfio_container *container,
				    const struct vfio_bar *bar)
{
	vfio_space_unmap_range(space, container, bar->gpa, bar->size);
}

/* Calls fn for each BAR (of the device, unless NULL) and each container (or this one) where it should be mapped. */
static void vfio_space_each_map(struct vfio_space *space, const struct vfio_device *device,
				const struct vfio_container *only,
				void (*fn)(struct vfio_space *space, struct vfio_container *container,
					   const struct vfio_bar *bar))
{
	for (const struct vfio_bar *bar = space->bars; bar; bar = bar->next)
		for (struct vfio_container *container = space->containers; container; container = container->next)
			if ((!device || bar->device == device) && (!only || container == only) &&
			    vfio_space_peers(space, container, bar))
				fn(space, container, bar);
}

void vfio_space_unmap_bars_in(struct vfio_space *space, struct vfio_container *container)
{
	vfio_space_each_map(space, NULL, container, vfio_space_unmap_bar_in);
}

void vfio_space_map_bars_in(struct vfio_space *space, struct vfio_container *container)
{
	vfio_space_each_map(space, NULL, container, vfio_space_map_bar_in);
}

void vfio_space_unmap_bars_of(struct vfio_space *space, const struct vfio_device *device)
{
	vfio_space_each_map(space, device, NULL, vfio_space_unmap_bar_in);
}

void vfio_space_map_bars_of(struct vfio_space *space, const struct vfio_device *device)
{
	vfio_space_each_map(space, device, NULL, vfio_space_map_bar_in);
}

/* The BARs that this device alone reaches in its container. */
static void vfio_space_each_of_peer(struct vfio_space *space, const struct vfio_device *device,
				    void (*fn)(struct vfio_space *space, struct vfio_container *container,
					       const struct vfio_bar *bar))
{
	for (const struct vfio_bar *bar = space->bars; bar; bar = bar->next)
		if (vfio_space_is_peer(bar, device) && vfio_space_peers(space, device->container, bar) == 1)
			fn(space, device->container, bar);
}

void vfio_space_add_peer(struct vfio_space *space, const struct vfio_device *device)
{
	vfio_space_each_of_peer(space, device, vfio_space_map_bar_in);
}

void vfio_space_remove_peer(struct vfio_space *space, const struct vfio_device *device)
{
	vfio_space_each_of_peer(space, device, vfio_space_unmap_bar_in);
}

uint64_t vfio_space_avoid(struct vfio_space *space, uint64_t gpa, uint64_t size)
{
	uint64_t hole, hole_last, until = 0;

	vfio_space_lock(space);
	for (const struct vfio_container *container = space->containers; container && !until; container = container->next)
		if (vfio_space_find_hole(container, gpa, gpa + size - 1, &hole, &hole_last))
			until = hole_last;
	vfio_space_unlock(space);
	return until;
}

void vfio_space_map_bar(struct vfio_space *space, struct vfio_bar *bar)
{
	bar->next = space->bars;
	space->bars = bar;
	for (struct vfio_container *container = space->containers; container; container = container->next)
		if (vfio_space_peers(space, container, bar))
			vfio_space_map_bar_in(space, container, bar);
}

void vfio_space_unmap_bar(struct vfio_space *space, struct vfio_bar *bar)
{
	struct vfio_bar **link = &space->bars;

	while (*link && *link != bar)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = bar->next;
	for (struct vfio_container *container = space->containers; container; container = container->next)
		if (vfio_space_peers(space, container, bar))
			vfio_space_unmap_bar_in(space, container, bar);
}
