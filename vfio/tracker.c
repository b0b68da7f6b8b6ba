/* SPDX-License-Identifier: Apache-2.0 */
/* See tracker.h. */
#include "vfio/tracker.h"

#include "core/bitmap.h"
#include "vfio/container.h"

#define PAGE GUEST_PAGE_SIZE

static const struct dirty_source_ops source_ops;

static struct vfio_device *vfio_tracker_of(struct dirty_source *source)
{
	return container_of(source, struct vfio_device, source);
}

void vfio_tracker_init(struct vfio_device *device, bool no_device_log)
{
	int rc = no_device_log ? -ENOTTY :
		vfio_device_feature(device, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET,
				    VFIO_DEVICE_FEATURE_DMA_LOGGING_START, NULL, 0);

	device->dma_log = (struct vfio_dma_log){.supported = rc >= 0};
	device->coverage = device->dma_log.supported ? VFIO_COVERAGE_DEVICE : device->backend->coverage(device);
	device->source = (struct dirty_source){.name = device->host.name, .ops = &source_ops};
}

/* ---- The device's own log ---- */

/* The spans of RAM below and above 4 GiB: devices take few ranges. */
static void vfio_tracker_choose_ranges(const struct vfio_space *space, struct vfio_dma_log *log)
{
	log->range_count = 0;
	for (size_t i = 0; i < space->ram_count; i++) {
		const struct guest_region *region = &space->ram[i].region;
		struct vfio_device_feature_dma_logging_range *range = &log->ranges[log->range_count];

		if (log->range_count && (range[-1].iova < GIB(4)) == (region->gpa < GIB(4))) {
			range[-1].length = region->gpa + region->size - range[-1].iova;
			continue;
		}
		range->iova = region->gpa;
		range->length = region->size;
		log->range_count++;
	}
}

static int vfio_tracker_dma_log_start(struct vfio_device *device, struct err *err)
{
	struct vfio_device_feature_dma_logging_control control = {.page_size = PAGE};
	int rc;

	vfio_tracker_choose_ranges(device->space, &device->dma_log);
	control.num_ranges = (uint32_t)device->dma_log.range_count;
	control.ranges = (uintptr_t)device->dma_log.ranges;
	rc = vfio_device_feature(device, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &control,
				 sizeof(control));
	if (rc < 0)
		return err_sys(err, rc, "start the device's DMA log");
	device->dma_log.page_size = control.page_size;
	device->dma_log.on = true;
	return 0;
}

static void vfio_tracker_dma_log_stop(struct vfio_device *device)
{
	int rc = vfio_device_feature(device, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0);

	device->dma_log.on = false;
	if (rc < 0)
		log_warn(device->log, "vfio %s: stop the device's DMA log: %s", device->host.name,
			 strerrordesc_np(-rc));
}

static int vfio_tracker_dma_log_report(struct vfio_device *device, uint64_t iova, uint64_t size, unsigned long *bitmap)
{
	struct vfio_device_feature_dma_logging_report report = {
		.iova = iova,
		.length = size,
		.page_size = PAGE,
		.bitmap = (uintptr_t)bitmap,
	};

	return vfio_device_feature(device, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, &report,
				   sizeof(report));
}

/* ---- Bitmaps ---- */

/* A request: bits of [gpa, gpa + size) go into bitmap; those that a tracker reports beyond it into guest memory. */
struct request {
	struct vfio_device *device;
	uint64_t gpa, size;
	unsigned long *bitmap;
	bool keep;    /* the IOMMU's log does not forget it */
	bool last;    /* nobody will be asked again: what nobody can tell counts as written now */
};

static void vfio_tracker_set_page(const struct request *request, uint64_t page_gpa)
{
	if (page_gpa >= request->gpa && page_gpa - request->gpa < request->size)
		bitmap_set(request->bitmap, (page_gpa - request->gpa) / PAGE);
	else
		guest_memory_dirty(request->device->space->memory, page_gpa, PAGE);
}

/* Within the request. */
static void vfio_tracker_set_range(const struct request *request, uint64_t gpa, uint64_t size)
{
	uint64_t page = (gpa - request->gpa) / PAGE, end = page + size / PAGE;

	for (; page < end && page % BITS_PER_LONG; page++)
		bitmap_set(request->bitmap, page);
	for (; end - page >= BITS_PER_LONG; page += BITS_PER_LONG)
		request->bitmap[page / BITS_PER_LONG] = ~0ul;
	for (; page < end; page++)
		bitmap_set(request->bitmap, page);
}

static int vfio_tracker_ask(const struct request *request, uint64_t gpa, uint64_t size, unsigned long *bitmap)
{
	struct vfio_device *device = request->device;

	return device->dma_log.on ? vfio_tracker_dma_log_report(device, gpa, size, bitmap) :
				    device->backend->collect(device, gpa, size, bitmap, request->keep);
}

/*
 * Asks the tracker about one run and spreads the answer. Where bit 0 of the answer falls on a whole long of the
 * request's bitmap it is written there at once.
 */
static int vfio_tracker_ask_run(const struct request *request, uint64_t gpa, uint64_t size)
{
	uint64_t pages = size / PAGE, skip = (gpa - request->gpa) / PAGE;
	_cleanup_(free_ptr) unsigned long *answer = NULL;
	int rc;

	if (gpa >= request->gpa && gpa + size <= request->gpa + request->size && skip % BITS_PER_LONG == 0)
		return vfio_tracker_ask(request, gpa, size, request->bitmap + skip / BITS_PER_LONG);
	answer = calloc(bitmap_longs(pages), sizeof(*answer));
	if (!answer)
		return -ENOMEM;
	rc = vfio_tracker_ask(request, gpa, size, answer);
	for (size_t i = 0; rc >= 0 && i < bitmap_longs(pages); i++)
		for (unsigned long word = answer[i]; word; word &= word - 1)
			vfio_tracker_set_page(request, gpa + (i * BITS_PER_LONG + (size_t)__builtin_ctzl(word)) * PAGE);
	return rc < 0 ? rc : 0;
}

/* ---- Collecting ---- */

/* Whether the log was started for gpa, and for how many of the bytes from there on: of all that follow it knows or not. */
static bool vfio_tracker_is_logged(const struct vfio_dma_log *log, uint64_t gpa, uint64_t *size)
{
	for (size_t i = 0; i < log->range_count; i++) {
		const struct vfio_device_feature_dma_logging_range *range = &log->ranges[i];

		if (gpa >= range->iova && gpa - range->iova < range->length) {
			*size = MIN(*size, range->length - (gpa - range->iova));
			return true;
		}
		if (gpa < range->iova)
			*size = MIN(*size, range->iova - gpa);
	}
	return false;
}

/* Nobody can tell of this memory: it counts as written, at the latest opportunity. */
static void vfio_tracker_set_untold(const struct request *request, uint64_t gpa, uint64_t size)
{
	const struct dirty_set *set = request->device->space->dirty;

	if (request->last || !set || !set->rounds_follow)
		vfio_tracker_set_range(request, gpa, size);
}

static void vfio_tracker_warn_of_added(struct vfio_device *device)
{
	if (!device->told_uncovered)
		log_warn(device->log, "vfio %s: memory added after its DMA log was started counts as dirty",
			 device->host.name);
	device->told_uncovered = true;
}

/* What the log was started for is asked; memory that came later counts as written. */
static int vfio_tracker_collect_dma_log(const struct request *request)
{
	struct vfio_device *device = request->device;
	uint64_t at = request->gpa, end = request->gpa + request->size, size;
	int rc = 0;

	for (; rc == 0 && vfio_space_next_run(device->space, &at, end, &size, false); at += size) {
		if (vfio_tracker_is_logged(&device->dma_log, at, &size)) {
			rc = vfio_tracker_ask_run(request, at, size);
			continue;
		}
		vfio_tracker_warn_of_added(device);
		vfio_tracker_set_untold(request, at, size);
	}
	return rc;
}

static bool vfio_tracker_uses_iommu_log(const struct vfio_device *device)
{
	return device->tracking && (device->coverage == VFIO_COVERAGE_TYPE1 || device->coverage == VFIO_COVERAGE_HWPT);
}

/* Two devices whose writes are in one IOMMU log. */
static bool vfio_tracker_share_log(const struct vfio_device *a, const struct vfio_device *b)
{
	return vfio_tracker_uses_iommu_log(a) && vfio_tracker_uses_iommu_log(b) && a->container == b->container &&
	a->hwpt == b->hwpt;
}

/* The device whose query serves all who share its log. */
static bool vfio_tracker_asks_for_all(const struct vfio_device *device)
{
	for (const struct vfio_device *other = device->space->devices; other && other != device; other = other->next)
		if (vfio_tracker_share_log(other, device))
			return false;
	return true;
}

static int vfio_tracker_collect_iommu(const struct request *request)
{
	struct vfio_device *device = request->device;
	/* Type1 refuses a query that cuts a map; what it tells beside the request must not be lost. */
	bool whole = device->coverage == VFIO_COVERAGE_TYPE1;
	uint64_t at = request->gpa, end = request->gpa + request->size, size;
	int rc = 0;

	for (; rc == 0 && vfio_space_next_run(device->space, &at, end, &size, whole); at += size)
		rc = vfio_tracker_ask_run(request, at, size);
	return rc;
}

static int vfio_tracker_collect(const struct request *request)
{
	struct vfio_device *device = request->device;

	if (device->dma_log.on)
		return vfio_tracker_collect_dma_log(request);
	if (device->coverage == VFIO_COVERAGE_NONE) {
		vfio_tracker_set_untold(request, request->gpa, request->size);
		return 0;
	}
	return vfio_tracker_asks_for_all(device) ? vfio_tracker_collect_iommu(request) : 0;
}

/* ---- The source ---- */

static bool vfio_tracker_shares_log(const struct vfio_device *device)
{
	for (const struct vfio_device *other = device->space->devices; other; other = other->next)
		if (other != device && vfio_tracker_share_log(other, device))
			return true;
	return false;
}

static void vfio_tracker_lock(struct vfio_space *space)
{
	if (space->lock)
		pthread_mutex_lock(space->lock);
}

static void vfio_tracker_unlock(struct vfio_space *space)
{
	if (space->lock)
		pthread_mutex_unlock(space->lock);
}

static int vfio_tracker_start(struct vfio_device *device, struct err *err)
{
	int rc = 0;

	device->told_uncovered = false;
	device->tracking = true;
	if (device->coverage == VFIO_COVERAGE_NONE)
		log_warn(device->log, "vfio %s: neither the device nor its IOMMU tells what it writes: all memory counts as dirty",
			 device->host.name);
	else if (device->coverage == VFIO_COVERAGE_DEVICE)
		rc = vfio_tracker_dma_log_start(device, err);
	else if (!vfio_tracker_shares_log(device))
		rc = device->backend->track(device, true);
	if (rc < 0) {
		device->tracking = false;
		if (device->coverage != VFIO_COVERAGE_DEVICE)
			err_sys(err, rc, "start the dirty log of the IOMMU (%s)", vfio_coverage_name(device->coverage));
	}
	return rc;
}

static int vfio_tracker_source_start(struct dirty_source *source, struct err *err)
{
	struct vfio_device *device = vfio_tracker_of(source);
	int rc;

	vfio_tracker_lock(device->space);
	rc = vfio_tracker_start(device, err);
	vfio_tracker_unlock(device->space);
	return rc;
}

static void vfio_tracker_stop(struct vfio_device *device)
{
	int rc = 0;

	if (!device->tracking)
		return;
	if (device->dma_log.on)
		vfio_tracker_dma_log_stop(device);
	else if (device->coverage != VFIO_COVERAGE_NONE && !vfio_tracker_shares_log(device))
		rc = device->backend->track(device, false);
	device->tracking = false;
	if (rc < 0)
		log_warn(device->log, "vfio %s: stop the dirty log of the IOMMU: %s", device->host.name,
			 strerrordesc_np(-rc));
}

static void vfio_tracker_source_stop(struct dirty_source *source)
{
	struct vfio_device *device = vfio_tracker_of(source);

	vfio_tracker_lock(device->space);
	vfio_tracker_stop(device);
	vfio_tracker_unlock(device->space);
}

static int vfio_tracker_source_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap,
				       struct err *err)
{
	struct request request = {.device = vfio_tracker_of(source), .gpa = gpa, .size = size, .bitmap = bitmap};
	int rc;

	vfio_tracker_lock(request.device->space);
	rc = vfio_tracker_collect(&request);
	vfio_tracker_unlock(request.device->space);
	return rc < 0 ? err_sys(err, rc, "read the dirty log (%s) of 0x%llx-0x%llx",
				vfio_coverage_name(request.device->coverage),
				(unsigned long long)gpa, (unsigned long long)(gpa + size - 1)) : 0;
}

static const struct dirty_source_ops source_ops = {.start = vfio_tracker_source_start, .stop = vfio_tracker_source_stop,
						   .collect = vfio_tracker_source_collect};

/* ---- Keeping ---- */

/* Everything that the device reports of the range goes to guest memory; all of it when the report fails. */
static void vfio_tracker_keep_of(struct vfio_device *device, uint64_t gpa, uint64_t size, bool keep)
{
	_cleanup_(free_ptr) unsigned long *bitmap = calloc(bitmap_longs(size / PAGE), sizeof(*bitmap));
	struct request request = {.device = device, .gpa = gpa, .size = size, .bitmap = bitmap, .keep = keep,
				  .last = true};
	int rc;

	if (!device->tracking)
		return;
	rc = bitmap ? vfio_tracker_collect(&request) : -ENOMEM;
	if (rc < 0)
		log_warn(device->log, "vfio %s: what it wrote to 0x%llx-0x%llx is not known (%s): all of it counts as dirty",
			 device->host.name, (unsigned long long)gpa, (unsigned long long)(gpa + size - 1),
			 strerrordesc_np(-rc));
	for (uint64_t page = 0; page < size / PAGE; page++)
		if (rc < 0 || bitmap_test(bitmap, page))
			guest_memory_dirty(device->space->memory, gpa + page * PAGE, PAGE);
}

void vfio_tracker_keep(struct vfio_space *space, uint64_t gpa, uint64_t size)
{
	for (struct vfio_device *device = space->devices; device; device = device->next)
		vfio_tracker_keep_of(device, gpa, size, true);
}

void vfio_tracker_flush(struct vfio_device *device)
{
	for (size_t i = 0; device->tracking && i < device->space->ram_count; i++)
		vfio_tracker_keep_of(device, device->space->ram[i].region.gpa, device->space->ram[i].region.size,
				     false);
}

/* ---- Telling ---- */

static uint64_t vfio_tracker_untold_of(const struct vfio_device *device)
{
	uint64_t at = 0, size, bytes = 0;

	for (; vfio_space_next_run(device->space, &at, UINT64_MAX, &size, false); at += size)
		if (device->dma_log.on ? !vfio_tracker_is_logged(&device->dma_log, at, &size)
		    : device->coverage == VFIO_COVERAGE_NONE)
			bytes += size;
	return bytes;
}

uint64_t vfio_tracker_untold(struct vfio_space *space, const struct vfio_device **who)
{
	uint64_t most = 0;

	*who = NULL;
	vfio_tracker_lock(space);
	for (const struct vfio_device *device = space->devices; device; device = device->next) {
		uint64_t bytes = vfio_tracker_untold_of(device);

		if (bytes > most)
			*who = device;
		most = MAX(most, bytes);
	}
	vfio_tracker_unlock(space);
	return most;
}
