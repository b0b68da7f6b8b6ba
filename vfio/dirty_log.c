/* SPDX-License-Identifier: Apache-2.0 */
/* See dirty_log.h. */
#include "vfio/dirty_log.h"

#include "core/bitmap.h"

#define PAGE GUEST_PAGE_SIZE

const char *vfio_coverage_name(enum vfio_coverage coverage)
{
	static const char *const names[] = {
		[VFIO_COVERAGE_NONE] = "none",
		[VFIO_COVERAGE_TYPE1] = "type1",
		[VFIO_COVERAGE_HWPT] = "hwpt",
		[VFIO_COVERAGE_DEVICE] = "device log",
	};

	return names[coverage];
}

/* ---- Bitmaps ---- */

/* A request: bits of [gpa, gpa + size) go into bitmap, others that the log reports into guest memory's log. */
struct request {
	struct vfio_dirty_log *log;
	uint64_t gpa, size;
	unsigned long *bitmap;
	bool last; /* no query follows: untracked memory counts as dirty now */
};

static void vfio_dirty_log_set_page(const struct request *request, uint64_t page_gpa)
{
	if (page_gpa >= request->gpa && page_gpa - request->gpa < request->size)
		bitmap_set(request->bitmap, (page_gpa - request->gpa) / PAGE);
	else
		guest_memory_dirty(request->log->logs->memory, page_gpa, PAGE);
}

/* The range is within the request. */
static void vfio_dirty_log_set_range(const struct request *request, uint64_t gpa, uint64_t size)
{
	uint64_t page = (gpa - request->gpa) / PAGE, end = page + size / PAGE;

	for (; page < end && page % BITS_PER_LONG; page++)
		bitmap_set(request->bitmap, page);
	for (; end - page >= BITS_PER_LONG; page += BITS_PER_LONG)
		request->bitmap[page / BITS_PER_LONG] = ~0ul;
	for (; page < end; page++)
		bitmap_set(request->bitmap, page);
}

/* Queries the log for one run. If the run starts at a whole long of the request's bitmap, the log writes into that. */
static int vfio_dirty_log_ask_run(const struct request *request, uint64_t gpa, uint64_t size)
{
	struct vfio_dirty_log *log = request->log;
	uint64_t pages = size / PAGE, skip = (gpa - request->gpa) / PAGE;
	_cleanup_(free_ptr) unsigned long *answer = NULL;
	int rc;

	if (gpa >= request->gpa && gpa + size <= request->gpa + request->size && skip % BITS_PER_LONG == 0)
		return log->ops->query(log, gpa, size, request->bitmap + skip / BITS_PER_LONG);
	answer = calloc(bitmap_longs(pages), sizeof(*answer));
	if (!answer)
		return -ENOMEM;
	rc = log->ops->query(log, gpa, size, answer);
	for (size_t i = 0; rc >= 0 && i < bitmap_longs(pages); i++)
		for (unsigned long word = answer[i]; word; word &= word - 1)
			vfio_dirty_log_set_page(request,
						gpa + (i * BITS_PER_LONG + (size_t)__builtin_ctzl(word)) * PAGE);
	return rc < 0 ? rc : 0;
}

/* ---- Collecting ---- */

static bool vfio_dirty_log_is_exact(const struct vfio_dirty_log *log, uint64_t gpa, uint64_t *size)
{
	return !log->ops->exact || log->ops->exact(log, gpa, size);
}

/* Nothing tracks this memory: it counts as dirty, as late as possible. */
static void vfio_dirty_log_set_untracked(const struct request *request, uint64_t gpa, uint64_t size)
{
	const struct dirty_set *set = request->log->logs->set;

	if (request->last || !set || !set->rounds_follow)
		vfio_dirty_log_set_range(request, gpa, size);
}

static void vfio_dirty_log_warn_of_added(struct vfio_dirty_log *log)
{
	if (!log->warned_added)
		log_warn(log->logs->log, "vfio %s: memory added after its DMA log was started counts as dirty",
			 log->source.name);
	log->warned_added = true;
}

static int vfio_dirty_log_collect(const struct request *request)
{
	struct vfio_dirty_log *log = request->log;
	uint64_t at = request->gpa, end = request->gpa + request->size, size;
	int rc = 0;

	if (log->ops->coverage == VFIO_COVERAGE_NONE) {
		vfio_dirty_log_set_untracked(request, request->gpa, request->size);
		return 0;
	}
	for (; rc == 0 && vfio_ram_next_run(log->logs->ram, &at, end, &size, log->ops->whole); at += size) {
		if (vfio_dirty_log_is_exact(log, at, &size)) {
			rc = vfio_dirty_log_ask_run(request, at, size);
			continue;
		}
		vfio_dirty_log_warn_of_added(log);
		vfio_dirty_log_set_untracked(request, at, size);
	}
	return rc;
}

/* ---- The source ---- */

static struct vfio_dirty_log *vfio_dirty_log_of(struct dirty_source *source)
{
	return container_of(source, struct vfio_dirty_log, source);
}

static void vfio_dirty_log_lock(const struct vfio_dirty_logs *logs)
{
	if (logs->lock)
		pthread_mutex_lock(logs->lock);
}

static void vfio_dirty_log_unlock(const struct vfio_dirty_logs *logs)
{
	if (logs->lock)
		pthread_mutex_unlock(logs->lock);
}

static void vfio_dirty_log_warn_of_none(const struct vfio_dirty_log *log, const struct vfio_dirty_log_user *user)
{
	if (log->ops->coverage == VFIO_COVERAGE_NONE)
		log_warn(log->logs->log,
			 "vfio %s: neither the device nor its IOMMU tracks what it writes: all memory counts as dirty",
			 user->name);
}

static int vfio_dirty_log_start(struct dirty_source *source, struct err *err)
{
	struct vfio_dirty_log *log = vfio_dirty_log_of(source);
	int rc;

	vfio_dirty_log_lock(log->logs);
	rc = log->ops->track(log, true);
	log->started = rc >= 0;
	log->warned_added = false;
	for (const struct vfio_dirty_log_user *user = log->users; rc >= 0 && user; user = user->next)
		vfio_dirty_log_warn_of_none(log, user);
	vfio_dirty_log_unlock(log->logs);
	return rc < 0 ? err_sys(err, rc, "start %s", log->ops->name) : 0;
}

static void vfio_dirty_log_stop(struct dirty_source *source)
{
	struct vfio_dirty_log *log = vfio_dirty_log_of(source);
	int rc;

	vfio_dirty_log_lock(log->logs);
	rc = log->started ? log->ops->track(log, false) : 0;
	log->started = false;
	vfio_dirty_log_unlock(log->logs);
	if (rc < 0)
		log_warn(log->logs->log, "vfio %s: stop %s: %s", source->name, log->ops->name, strerrordesc_np(-rc));
}

static int vfio_dirty_log_source_collect(struct dirty_source *source, uint64_t gpa, uint64_t size,
					 unsigned long *bitmap, struct err *err)
{
	struct request request = {.log = vfio_dirty_log_of(source), .gpa = gpa, .size = size, .bitmap = bitmap};
	int rc;

	vfio_dirty_log_lock(request.log->logs);
	rc = vfio_dirty_log_collect(&request);
	vfio_dirty_log_unlock(request.log->logs);
	return rc < 0 ? err_sys(err, rc, "read the dirty log (%s) of 0x%llx-0x%llx",
				vfio_coverage_name(request.log->ops->coverage), (unsigned long long)gpa,
				(unsigned long long)(gpa + size - 1)) : 0;
}

static const struct dirty_source_ops source_ops = {.start = vfio_dirty_log_start, .stop = vfio_dirty_log_stop,
						   .collect = vfio_dirty_log_source_collect};

void vfio_dirty_log_init(struct vfio_dirty_log *log, struct vfio_dirty_logs *logs, const struct vfio_dirty_log_ops *ops)
{
	*log = (struct vfio_dirty_log){.source.ops = &source_ops, .ops = ops, .logs = logs};
}

/* ---- Untracked devices ---- */

static int vfio_dirty_log_nobody_track(struct vfio_dirty_log *log, bool on)
{
	return 0;
}

static bool vfio_dirty_log_nobody_exact(const struct vfio_dirty_log *log, uint64_t gpa, uint64_t *size)
{
	return false;
}

void vfio_dirty_logs_init(struct vfio_dirty_logs *logs)
{
	static const struct vfio_dirty_log_ops nobody = {
		.coverage = VFIO_COVERAGE_NONE,
		.track = vfio_dirty_log_nobody_track,
		.exact = vfio_dirty_log_nobody_exact,
	};

	vfio_dirty_log_init(&logs->nobody, logs, &nobody);
}

/* ---- Moving bits to guest memory ---- */

/* Moves everything that the log has of the range into guest memory's log; all of it when it cannot be read. */
static void vfio_dirty_log_keep(struct vfio_dirty_log *log, uint64_t gpa, uint64_t size)
{
	_cleanup_(free_ptr) unsigned long *bitmap = calloc(bitmap_longs(size / PAGE), sizeof(*bitmap));
	struct request request = {.log = log, .gpa = gpa, .size = size, .bitmap = bitmap, .last = true};
	int rc = bitmap ? vfio_dirty_log_collect(&request) : -ENOMEM;

	if (rc < 0)
		log_warn(log->logs->log,
			 "vfio %s: what it wrote to 0x%llx-0x%llx is not known (%s): all of it counts as dirty",
			 log->source.name, (unsigned long long)gpa, (unsigned long long)(gpa + size - 1),
			 strerrordesc_np(-rc));
	for (uint64_t page = 0; page < size / PAGE; page++)
		if (rc < 0 || bitmap_test(bitmap, page))
			guest_memory_dirty(log->logs->memory, gpa + page * PAGE, PAGE);
}

static void vfio_dirty_log_flush(struct vfio_dirty_log *log)
{
	const struct vfio_ram *ram = log->logs->ram;

	for (size_t i = 0; log->started && i < ram->count; i++)
		vfio_dirty_log_keep(log, ram->regions[i].region.gpa, ram->regions[i].region.size);
}

/* ---- Users ---- */

static void vfio_dirty_log_unlink(struct vfio_dirty_log *log)
{
	struct vfio_dirty_log **link = &log->logs->used;

	while (*link != log)
		link = &(*link)->next;
	*link = log->next;
}

static int vfio_dirty_log_first_joins(struct vfio_dirty_log *log, struct err *err)
{
	struct vfio_dirty_log **link = &log->logs->used;
	int rc;

	while (*link)
		link = &(*link)->next;
	*link = log;
	log->next = NULL;
	log->source.name = log->users->name;
	rc = log->logs->set ? dirty_set_add(log->logs->set, &log->source, err) : 0;
	if (rc < 0)
		vfio_dirty_log_unlink(log);
	return rc;
}

int vfio_dirty_log_join(struct vfio_dirty_log *log, struct vfio_dirty_log_user *user, struct err *err)
{
	struct vfio_dirty_log_user **link = &log->users;
	int rc = 0;

	while (*link)
		link = &(*link)->next;
	*link = user;
	user->next = NULL;
	if (log->users == user)
		rc = vfio_dirty_log_first_joins(log, err);
	else if (log->started)
		vfio_dirty_log_warn_of_none(log, user);
	if (rc < 0)
		*link = NULL;
	else
		user->log = log;
	return rc;
}

void vfio_dirty_log_leave(struct vfio_dirty_log_user *user)
{
	struct vfio_dirty_log *log = user->log;
	struct vfio_dirty_log_user **link = &log->users;

	if (log->users == user && !user->next) {
		vfio_dirty_log_flush(log);
		if (log->logs->set)
			dirty_set_remove(log->logs->set, &log->source);
		vfio_dirty_log_unlink(log);
	}
	while (*link != user)
		link = &(*link)->next;
	*link = user->next;
	user->log = NULL;
	log->source.name = log->users ? log->users->name : NULL;
}

/* ---- Information ---- */

static uint64_t vfio_dirty_log_untracked(const struct vfio_dirty_log *log)
{
	uint64_t at = 0, size, bytes = 0;

	for (; vfio_ram_next_run(log->logs->ram, &at, UINT64_MAX, &size, false); at += size)
		if (!vfio_dirty_log_is_exact(log, at, &size))
			bytes += size;
	return bytes;
}

uint64_t vfio_dirty_logs_untracked(struct vfio_dirty_logs *logs, const struct vfio_dirty_log_user **who)
{
	uint64_t most = 0;

	*who = NULL;
	vfio_dirty_log_lock(logs);
	for (const struct vfio_dirty_log *log = logs->used; log; log = log->next) {
		uint64_t bytes = vfio_dirty_log_untracked(log);

		if (bytes > most)
			*who = log->users;
		most = MAX(most, bytes);
	}
	vfio_dirty_log_unlock(logs);
	return most;
}
