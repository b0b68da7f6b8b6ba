/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See vhost.h.
 *
 * The log is a bitmap in this process, from guest address 0 on. The kernel's workers set its bits under a lock of the
 * ring. VHOST_SET_FEATURES takes these locks: once it has switched the log off, the kernel no longer writes to it.
 */
#include "devices/virtio/vhost.h"

#include "core/bitmap.h"
#include "core/errand.h"
#include "core/irq.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define MAX_REGIONS 64u /* guest_memory's limit, and vhost's default one */

struct vhost {
	struct guest_memory_listener listener;
	struct guest_memory *memory;
	const char *path;
	int fd, error_fd;
	uint64_t features; /* the kernel's */
	struct dirty_set *dirty;
	struct dirty_source source;
	pthread_mutex_t lock; /* of all below: rings and the log are used on different threads */
	bool featured;        /* negotiated is set */
	uint64_t negotiated;
	struct vhost_vring_addr rings[VHOST_RINGS];
	bool running[VHOST_RINGS];
	bool tracked;       /* the log is on */
	unsigned long *log; /* NULL: none */
	size_t log_pages;
	/* struct vhost_memory with a length of its array. */
	struct {
		uint32_t nregions;
		uint32_t padding;
		struct vhost_memory_region regions[MAX_REGIONS];
	} table;
};

int vhost_ioctl(struct vhost *vhost, unsigned long request, const void *arg)
{
	return ioctl(vhost->fd, request, arg) < 0 ? -errno : 0;
}

/* ---- the log; lock held ---- */

static int vhost_send_features(struct vhost *vhost, bool log)
{
	uint64_t features = vhost->negotiated | (log ? 1ull << VHOST_F_LOG_ALL : 0);

	return vhost->featured ? vhost_ioctl(vhost, VHOST_SET_FEATURES, &features) : 0;
}

static int vhost_send_addr(struct vhost *vhost, unsigned int ring, bool log)
{
	struct vhost_vring_addr addr = vhost->rings[ring];

	addr.flags = log ? 1u << VHOST_VRING_F_LOG : 0;
	return vhost_ioctl(vhost, VHOST_SET_VRING_ADDR, &addr);
}

/* Switches the log of buffers and of each used ring. */
static int vhost_set_log(struct vhost *vhost, bool on)
{
	int ret = vhost_send_features(vhost, on);

	for (unsigned int i = 0; i < VHOST_RINGS && ret == 0; i++)
		if (vhost->running[i])
			ret = vhost_send_addr(vhost, i, on);
	return ret;
}

static struct vhost *vhost_of(struct dirty_source *source)
{
	return container_of(source, struct vhost, source);
}

/* The number of the page behind the last region. */
static uint64_t vhost_end_of_memory(const struct vhost *vhost)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < vhost->table.nregions; i++)
		end = MAX(end, vhost->table.regions[i].guest_phys_addr + vhost->table.regions[i].memory_size);
	return end / GUEST_PAGE_SIZE;
}

/* A log for all of memory, with no bit set. The kernel may still write to an old one (vhost_end_log), so that stays. */
static int vhost_need_log(struct vhost *vhost, struct err *err)
{
	size_t pages = vhost_end_of_memory(vhost);

	if (vhost->log && vhost->log_pages == pages) {
		memset(vhost->log, 0, bitmap_longs(pages) * sizeof(unsigned long));
		return 0;
	}
	if (vhost->log)
		return err_set(err, -EBUSY, "%s: its dirty log is too short for the guest's memory", vhost->path);
	vhost->log = calloc(bitmap_longs(pages), sizeof(unsigned long));
	if (!vhost->log)
		return err_sys(err, -ENOMEM, "%s: log of %zu pages", vhost->path, pages);
	vhost->log_pages = pages;
	return 0;
}

/* If the log cannot be switched off, it is kept until the descriptor is closed: the kernel may write to it. */
static void vhost_end_log(struct vhost *vhost)
{
	vhost->tracked = false;
	if (vhost_set_log(vhost, false) == 0)
		free(take_ptr(vhost->log));
}

static int vhost_begin_log(struct vhost *vhost, struct err *err)
{
	uint64_t base;
	int ret = vhost_need_log(vhost, err);

	if (ret < 0)
		return ret;
	base = (uintptr_t)vhost->log;
	ret = vhost_ioctl(vhost, VHOST_SET_LOG_BASE, &base);
	if (ret == 0)
		ret = vhost_set_log(vhost, true);
	vhost->tracked = ret == 0;
	if (ret == 0)
		return 0;
	vhost_end_log(vhost);
	return err_sys(err, ret, "%s: dirty log", vhost->path);
}

static int vhost_log_start(struct dirty_source *source, struct err *err)
{
	struct vhost *vhost = vhost_of(source);
	int ret;

	if (!(vhost->features >> VHOST_F_LOG_ALL & 1))
		return err_set(err, -ENOTSUP, "%s: this kernel's has no dirty log", vhost->path);
	pthread_mutex_lock(&vhost->lock);
	ret = vhost_begin_log(vhost, err);
	pthread_mutex_unlock(&vhost->lock);
	return ret;
}

static void vhost_log_stop(struct dirty_source *source)
{
	struct vhost *vhost = vhost_of(source);

	pthread_mutex_lock(&vhost->lock);
	if (vhost->tracked)
		vhost_end_log(vhost);
	pthread_mutex_unlock(&vhost->lock);
}

static int vhost_log_collect(struct dirty_source *source, uint64_t gpa, uint64_t size, unsigned long *bitmap,
			     struct err *err)
{
	struct vhost *vhost = vhost_of(source);
	uint64_t first = gpa / GUEST_PAGE_SIZE, pages = size / GUEST_PAGE_SIZE;
	int ret = 0;

	pthread_mutex_lock(&vhost->lock);
	if (!vhost->tracked || first > vhost->log_pages || pages > vhost->log_pages - first)
		ret = err_set(err, -EINVAL, "%s: 0x%llx, %llu bytes: not in its log", vhost->path,
			      (unsigned long long)gpa, (unsigned long long)size);
	else
		bitmap_take(vhost->log, first, pages, bitmap);
	pthread_mutex_unlock(&vhost->lock);
	return ret;
}

static const struct dirty_source_ops log_ops = {.start = vhost_log_start, .stop = vhost_log_stop,
						.collect = vhost_log_collect};

/* ---- memory ---- */

static int vhost_memory_add(struct guest_memory_listener *listener, const struct guest_region *region, struct err *err)
{
	struct vhost *vhost = container_of(listener, struct vhost, listener);
	int ret;

	pthread_mutex_lock(&vhost->lock);
	ret = vhost->tracked ? -EBUSY : 0;
	pthread_mutex_unlock(&vhost->lock);
	if (ret < 0)
		return err_set(err, ret, "%s: no memory can be added while dirty pages are tracked", vhost->path);
	if (vhost->table.nregions == MAX_REGIONS)
		return err_set(err, -ENOSPC, "%s: more than %u regions of memory", vhost->path, MAX_REGIONS);
	vhost->table.regions[vhost->table.nregions++] = (struct vhost_memory_region){
		.guest_phys_addr = region->gpa,
		.memory_size = region->size,
		.userspace_addr = (uintptr_t)region->host,
	};
	ret = vhost_ioctl(vhost, VHOST_SET_MEM_TABLE, &vhost->table);
	if (ret == 0)
		return 0;
	vhost->table.nregions--;
	return err_sys(err, ret, "%s: memory at 0x%llx", vhost->path, (unsigned long long)region->gpa);
}

static void vhost_memory_remove(struct guest_memory_listener *listener, const struct guest_region *region)
{
	struct vhost *vhost = container_of(listener, struct vhost, listener);

	for (uint32_t i = 0; i < vhost->table.nregions; i++)
		if (vhost->table.regions[i].guest_phys_addr == region->gpa) {
			vhost->table.regions[i] = vhost->table.regions[--vhost->table.nregions];
			break;
		}
	/* Fails only for a ring in the removed region, and rings are stopped before memory is removed. */
	vhost_ioctl(vhost, VHOST_SET_MEM_TABLE, &vhost->table);
}

static const struct guest_memory_listener_ops memory_ops = {
	.add = vhost_memory_add,
	.remove = vhost_memory_remove,
};

/* ---- open and close ---- */

static int vhost_open_device(const struct vhost_options *o, struct err *err)
{
	int fd = errand_open(o->path, O_RDWR | O_CLOEXEC, 0);

	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return err_set(err, -ENOENT, "there is no %s: load the kernel module %s (modprobe %s), or %s", o->path,
			       o->module, o->module, o->instead);
	case EACCES:
	case EPERM:
		return err_set(err, -EACCES, "no permission to use %s: join the group that owns it (ls -l %s), or %s",
			       o->path, o->path, o->instead);
	default:
		return err_sys(err, -errno, "open %s", o->path);
	}
}

static int vhost_set_up(struct vhost *vhost, const struct vhost_options *options, struct err *err)
{
	int ret = vhost_open_device(options, err);

	if (ret < 0)
		return ret;
	vhost->fd = ret;
	vhost->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vhost->error_fd < 0)
		return err_sys(err, -errno, "eventfd");
	ret = vhost_ioctl(vhost, VHOST_SET_OWNER, NULL);
	if (ret == 0)
		ret = vhost_ioctl(vhost, VHOST_GET_FEATURES, &vhost->features);
	if (ret < 0)
		return err_sys(err, ret, "%s", vhost->path);
	ret = guest_memory_listen(vhost->memory, &vhost->listener, err);
	if (ret < 0 || !vhost->dirty)
		return ret;
	ret = dirty_set_add(vhost->dirty, &vhost->source, err);
	if (ret < 0)
		guest_memory_unlisten(vhost->memory, &vhost->listener);
	return ret;
}

static void vhost_free_vhost(struct vhost *vhost)
{
	fd_close(&vhost->error_fd);
	fd_close(&vhost->fd);
	free(vhost->log); /* the kernel does not use it any more */
	pthread_mutex_destroy(&vhost->lock);
	free(vhost);
}

int vhost_open(const struct vhost_options *options, struct vhost **ret, struct err *err)
{
	struct vhost *vhost = calloc(1, sizeof(*vhost));
	int code;

	if (!vhost)
		return err_sys(err, -ENOMEM, "%s", options->path);
	*vhost = (struct vhost){
		.listener.ops = &memory_ops, .memory = options->memory, .path = options->path, .fd = -1, .error_fd = -1,
		.dirty = options->dirty, .source = {.name = options->path, .ops = &log_ops},
	};
	pthread_mutex_init(&vhost->lock, NULL);
	code = vhost_set_up(vhost, options, err);
	if (code < 0) {
		vhost_free_vhost(vhost);
		return code;
	}
	*ret = vhost;
	return 0;
}

void vhost_close(struct vhost *vhost)
{
	if (!vhost)
		return;
	if (vhost->dirty)
		dirty_set_remove(vhost->dirty, &vhost->source);
	guest_memory_unlisten(vhost->memory, &vhost->listener);
	vhost_free_vhost(vhost);
}

uint64_t vhost_features(const struct vhost *vhost)
{
	return vhost->features;
}

int vhost_set_features(struct vhost *vhost, uint64_t features, struct err *err)
{
	int ret;

	pthread_mutex_lock(&vhost->lock);
	vhost->negotiated = features & vhost->features & ~(1ull << VHOST_F_LOG_ALL);
	vhost->featured = true;
	ret = vhost_send_features(vhost, vhost->tracked);
	pthread_mutex_unlock(&vhost->lock);
	return ret < 0 ? err_sys(err, ret, "%s: features", vhost->path) : 0;
}

int vhost_error_fd(const struct vhost *vhost)
{
	return vhost->error_fd;
}

/* ---- rings ---- */

/* Programs a ring, the kick eventfd last. Lock held. */
static int vhost_program_ring(struct vhost *vhost, unsigned int ring, const struct virtqueue *vq, int call_fd,
			      struct err *err)
{
	const struct vhost_vring_state size = {.index = ring, .num = vq->setup.size};
	const struct vhost_vring_state base = {.index = ring, .num = vq->next_avail};
	const struct vhost_vring_file kick = {.index = ring, .fd = vq->kick_fd};
	const struct vhost_vring_file call = {.index = ring, .fd = call_fd};
	const struct vhost_vring_file error = {.index = ring, .fd = vhost->error_fd};
	const struct {
		unsigned long request;
		const void *arg;
	} steps[] = {
		{VHOST_SET_VRING_NUM, &size},
		{VHOST_SET_VRING_BASE, &base},
		{VHOST_SET_VRING_ADDR, &vhost->rings[ring]},
		{VHOST_SET_VRING_CALL, &call},
		{VHOST_SET_VRING_ERR, &error},
		{VHOST_SET_VRING_KICK, &kick},
	};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		int ret = vhost_ioctl(vhost, steps[i].request, steps[i].arg);

		if (ret < 0)
			return err_sys(err, ret, "%s: ring %u, step %zu", vhost->path, ring, i);
	}
	return 0;
}

int vhost_ring_start(struct vhost *vhost, unsigned int ring, const struct virtqueue *vq, int call_fd, struct err *err)
{
	int ret;

	pthread_mutex_lock(&vhost->lock);
	vhost->rings[ring] = (struct vhost_vring_addr){
		.index = ring,
		.flags = vhost->tracked ? 1u << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = (uintptr_t)vq->desc_host,
		.avail_user_addr = (uintptr_t)vq->avail_host,
		.used_user_addr = (uintptr_t)vq->used_host,
		.log_guest_addr = vq->setup.used,
	};
	ret = vhost_program_ring(vhost, ring, vq, call_fd, err);
	vhost->running[ring] = ret == 0;
	pthread_mutex_unlock(&vhost->lock);
	return ret;
}

void vhost_ring_call(struct vhost *vhost, unsigned int ring, int call_fd)
{
	const struct vhost_vring_file call = {.index = ring, .fd = call_fd};

	pthread_mutex_lock(&vhost->lock);
	/* One interrupt too many does no harm, and one may have gone to the old descriptor. */
	if (vhost->running[ring] && vhost_ioctl(vhost, VHOST_SET_VRING_CALL, &call) == 0)
		eventfd_kick(call_fd);
	pthread_mutex_unlock(&vhost->lock);
}

void vhost_ring_stop(struct vhost *vhost, unsigned int ring, struct virtqueue *vq)
{
	const struct vhost_vring_file none = {.index = ring, .fd = VHOST_FILE_UNBIND};
	struct vhost_vring_state base = {.index = ring};

	pthread_mutex_lock(&vhost->lock);
	vhost->running[ring] = false;
	vhost_ioctl(vhost, VHOST_SET_VRING_KICK, &none);
	vhost_ioctl(vhost, VHOST_SET_VRING_CALL, &none);
	if (vhost_ioctl(vhost, VHOST_GET_VRING_BASE, &base) == 0)
		vq->next_avail = vq->seen_avail = (uint16_t)base.num;
	pthread_mutex_unlock(&vhost->lock);
	vq->next_used = vq->signalled_used = le16toh(__atomic_load_n(&vq->used_host->idx, __ATOMIC_ACQUIRE));
}
