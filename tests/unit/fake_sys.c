/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_vfio.h: struct vfio_sys itself. Descriptors, device ioctls, and the call that fails on request. */
#include "tests/unit/fake_internal.h"

#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>

struct fake_kernel *fake_of(const struct vfio_sys *sys)
{
	return container_of((struct vfio_sys *)sys, struct fake_kernel, sys);
}

bool fake_fails(struct fake_kernel *fake)
{
	return ++fake->calls >= fake->fail_at && fake->fail_at && fake->calls - fake->fail_at <= fake->fail_also;
}

struct fake_fd *fake_fd(struct fake_kernel *fake, int fd)
{
	if (fd < FAKE_FD_BASE || fd >= FAKE_FD_BASE + (int)ARRAY_SIZE(fake->fds) || !fake->fds[fd - FAKE_FD_BASE].kind)
		return NULL;
	return &fake->fds[fd - FAKE_FD_BASE];
}

int fake_fd_new(struct fake_kernel *fake, enum fake_fd_kind kind, int index)
{
	for (int i = 0; i < (int)ARRAY_SIZE(fake->fds); i++)
		if (!fake->fds[i].kind) {
			fake->fds[i] = (struct fake_fd){.kind = kind, .index = index};
			return i + FAKE_FD_BASE;
		}
	fake_die("descriptors");
}

void fake_uuid_text(const uint8_t uuid[16], char text[37])
{
	size_t n = 0;

	for (int i = 0; i < 16; i++)
		n += (size_t)snprintf(text + n, 37 - n, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

static int open_group(struct fake_kernel *fake, int group, bool noiommu)
{
	bool drivers = false;

	if (group < 0 || group >= FAKE_MAX || !fake->groups[group].used || fake->groups[group].noiommu != noiommu)
		return -ENOENT;
	for (int i = 0; i < FAKE_MAX; i++)
		drivers |= fake->devices[i].used && fake->devices[i].group == group &&
			   strstr(fake->devices[i].driver, "vfio");
	if (!drivers)
		return -ENOENT;
	if (fake->groups[group].opened)
		return -EBUSY;
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->devices[i].used && fake->devices[i].group == group && fake->devices[i].ctx)
			return -EBUSY;
	fake->groups[group].opened = fake_fd_new(fake, FAKE_FD_GROUP, group);
	return fake->groups[group].opened;
}

static int open_container(struct fake_kernel *fake)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (!fake->containers[i].used) {
			memset(&fake->containers[i], 0, sizeof(fake->containers[i]));
			fake->containers[i].used = fake->containers[i].fd_open = true;
			return fake_fd_new(fake, FAKE_FD_CONTAINER, i);
		}
	fake_die("containers");
}

static int open_iommufd(struct fake_kernel *fake)
{
	for (int i = 0; i < FAKE_MAX; i++)
		if (!fake->ctxs[i].used) {
			fake->ctxs[i].used = fake->ctxs[i].fd_open = true;
			return fake_fd_new(fake, FAKE_FD_IOMMUFD, i);
		}
	fake_die("iommufds");
}

int fake_open(struct fake_kernel *fake, const char *path)
{
	int n;

	if (strncmp(path, "/lib/modules/", 13) == 0)
		return fake_text_open(fake, path);
	if (fake->no_rights)
		return -EACCES;
	if (strncmp(path, "/sys/", 5) == 0)
		return fake_sysfs_open(fake, path);
	if (strcmp(path, "/dev/vfio/vfio") == 0)
		return fake->no_container ? -ENOENT : open_container(fake);
	if (strcmp(path, "/dev/iommu") == 0)
		return fake->no_iommufd ? -ENOENT : open_iommufd(fake);
	if (sscanf(path, "/dev/vfio/devices/vfio%d", &n) == 1)
		return n >= 0 && n < FAKE_MAX && fake->devices[n].used && fake->devices[n].cdev ?
			       fake_fd_new(fake, FAKE_FD_CDEV, n) : -ENOENT;
	if (sscanf(path, "/dev/vfio/noiommu-%d", &n) == 1)
		return open_group(fake, n, true);
	if (sscanf(path, "/dev/vfio/%d", &n) == 1)
		return open_group(fake, n, false);
	return -ENOENT;
}

/* A context goes with its descriptor and its last bound device. */
static void put_ctx(struct fake_kernel *fake, int ctx)
{
	uint64_t unmapped;

	if (fake->ctxs[ctx].fd_open || fake->ctxs[ctx].refs)
		return;
	fake->ctxs[ctx].used = false;
	for (int i = 0; i < FAKE_MAX; i++)
		if (fake->objects[i].kind && fake->objects[i].ctx == ctx) {
			fake_unmap(fake, &fake->objects[i].maps, 0, UINT64_MAX, &unmapped);
			fake->objects[i].kind = FAKE_FREE;
		}
}

static void close_device(struct fake_kernel *fake, struct fake_device *device, bool bound)
{
	int ctx = device->ctx - 1;

	device->fd = 0;
	fake_masters_off(device);
	device->log = (struct fake_log){0};
	fake_irqs_off(device->pci);
	fake_migration_closed(device);
	if (!bound)
		return;
	fake_idev_gone(fake, device);
	fake->ctxs[ctx].refs--;
	put_ctx(fake, ctx);
}

static void close_fd(struct fake_kernel *fake, int fd)
{
	struct fake_fd *f = fake_fd(fake, fd), was;

	if (!f) {
		printf("Bail out! closed %d, which is not open\n", fd);
		exit(99);
	}
	was = *f;
	f->kind = FAKE_CLOSED;
	switch (was.kind) {
	case FAKE_FD_CONTAINER:
		fake->containers[was.index].fd_open = false;
		fake->containers[was.index].used = fake->containers[was.index].groups > 0;
		break;
	case FAKE_FD_GROUP:
		fake->groups[was.index].opened = 0;
		if (fake->groups[was.index].container)
			fake_unset_container(fake, was.index);
		break;
	case FAKE_FD_DEVICE:
		close_device(fake, &fake->devices[was.index], false);
		break;
	case FAKE_FD_CDEV:
		if (was.bound)
			close_device(fake, &fake->devices[was.index], true);
		break;
	case FAKE_FD_IOMMUFD:
		fake->ctxs[was.index].fd_open = false;
		put_ctx(fake, was.index);
		break;
	default:
		break;
	}
}

static int bind(struct fake_kernel *fake, struct fake_fd *f, int fd, struct vfio_uapi_bind *arg)
{
	struct fake_device *device = &fake->devices[f->index];
	const struct fake_fd *iommufd = fake_fd(fake, arg->iommufd);
	struct fake_object *idev;
	bool token = arg->flags & VFIO_UAPI_BIND_TOKEN;

	if (fake->old_bind && (arg->flags || arg->argsz > VFIO_UAPI_BIND_SIZE_OLD))
		return -EINVAL;
	if (fake->groups[device->group].opened)
		return -EBUSY;
	if (f->bound || device->ctx)
		return -EINVAL;
	if (token != device->token_wanted)
		return token ? -EINVAL : -EACCES;
	if (token && memcmp((void *)(uintptr_t)arg->token, device->token, 16) != 0)
		return -EACCES;
	if (!iommufd || iommufd->kind != FAKE_FD_IOMMUFD)
		return -EBADFD;
	if (fake->groups[device->group].other_owner)
		return -EPERM;
	idev = fake_object_new(fake, iommufd->index, FAKE_IDEV, &arg->devid);
	idev->device = f->index;
	device->ctx = iommufd->index + 1;
	device->devid = arg->devid;
	device->fd = fd;
	f->bound = true;
	fake->prefaults_at_open = fake->prefaults;
	fake_masters_off(device);
	fake->ctxs[iommufd->index].refs++;
	return 0;
}

static int log_start(struct fake_device *device, struct vfio_device_feature_dma_logging_control *control)
{
	const struct vfio_device_feature_dma_logging_range *ranges = (void *)(uintptr_t)control->ranges;

	if (device->log.on || !control->num_ranges)
		return -EINVAL;
	if (control->num_ranges > device->log_max_ranges)
		return -E2BIG;
	for (uint32_t i = 0; i < control->num_ranges; i++) {
		if ((ranges[i].iova | ranges[i].length) % control->page_size)
			return -EINVAL;
		device->log_ranges[i] = ranges[i];
	}
	device->log_range_count = control->num_ranges;
	device->log = (struct fake_log){.on = true};
	control->page_size = device->log_page_size;
	return 0;
}

/* Outside of what was started a device answers with an error: user space then knows nothing. */
static int log_report(struct fake_device *device, const struct vfio_device_feature_dma_logging_report *report)
{
	bool inside = false;

	for (size_t i = 0; device->log.on && i < device->log_range_count; i++)
		inside |= report->iova >= device->log_ranges[i].iova &&
			  report->iova + report->length <= device->log_ranges[i].iova + device->log_ranges[i].length;
	if (!inside)
		return -EINVAL;
	fake_log_report(&device->log, report->iova, report->length, (unsigned long *)(uintptr_t)report->bitmap);
	return 0;
}

static int feature(struct fake_kernel *fake, struct fake_device *device, struct vfio_device_feature *arg)
{
	uint32_t what = arg->flags & VFIO_DEVICE_FEATURE_MASK;
	bool probe = arg->flags & VFIO_DEVICE_FEATURE_PROBE;

	switch (what) {
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
		return !device->can_log ? -ENOTTY : probe ? 0 : log_start(device, (void *)arg->data);
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
		if (!device->can_log)
			return -ENOTTY;
		device->log = (struct fake_log){0};
		return 0;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
		return device->can_log ? log_report(device, (void *)arg->data) : -ENOTTY;
	case VFIO_UAPI_FEATURE_DMA_BUF:
		return device->dma_buf ? fake_fd_new(fake, FAKE_FD_DMABUF, (int)(device - fake->devices)) : -ENOTTY;
	}
	return fake_migration_feature(fake, device, arg);
}

static int device_ioctl(struct fake_kernel *fake, struct fake_fd *f, int fd, unsigned long request, void *arg)
{
	struct fake_device *device = &fake->devices[f->index];
	struct vfio_device_info *info = arg;

	if (f->kind == FAKE_FD_CDEV) {
		if (request == VFIO_UAPI_BIND)
			return bind(fake, f, fd, arg);
		if (!f->bound)
			return -EINVAL;
		if (request == VFIO_UAPI_ATTACH)
			return fake_cdev_attach(fake, device, arg);
		if (request == VFIO_UAPI_DETACH) {
			fake->detached_masters += fake_masters(device);
			device->pt = 0;
			return 0;
		}
	}
	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		info->flags = device->flags;
		info->num_regions = device->regions;
		info->num_irqs = device->irqs;
		return 0;
	case VFIO_DEVICE_FEATURE:
		return feature(fake, device, arg);
	case VFIO_DEVICE_RESET:
		return fake_migration_reset(fake, device);
	}
	return device->pci ? fake_pci_ioctl(fake, device, request, arg) : -ENOTTY;
}

/* The device that fd has open. */
static struct fake_device *device_of(struct fake_kernel *fake, int fd)
{
	struct fake_fd *f = fake_fd(fake, fd);

	return f && (f->kind == FAKE_FD_DEVICE || (f->kind == FAKE_FD_CDEV && f->bound)) ? &fake->devices[f->index] : NULL;
}

static ssize_t sys_pread(const struct vfio_sys *sys, int fd, void *buf, size_t len, uint64_t offset)
{
	struct fake_kernel *fake = fake_of(sys);
	struct fake_device *device = device_of(fake, fd);

	if (fake_fails(fake))
		return fake->fail_errno;
	return device ? fake_region_read(fake, device, buf, len, offset) : -EBADF;
}

static ssize_t sys_pwrite(const struct vfio_sys *sys, int fd, const void *buf, size_t len, uint64_t offset)
{
	struct fake_kernel *fake = fake_of(sys);
	struct fake_device *device = device_of(fake, fd);
	struct fake_fd *f = fake_fd(fake, fd);

	if (fake_fails(fake))
		return fake->fail_errno;
	if (f && f->kind == FAKE_FD_SYSFS)
		return fake_sysfs_write(fake, f, buf, len);
	return device ? fake_region_write(fake, device, buf, len, offset) : -EBADF;
}

/* The device whose state goes through fd. */
static struct fake_device *session_of(struct fake_kernel *fake, int fd)
{
	struct fake_fd *f = fake_fd(fake, fd);

	return f && f->kind == FAKE_FD_STATE ? &fake->devices[f->index] : NULL;
}

static ssize_t do_read(struct fake_kernel *fake, int fd, void *buf, size_t len)
{
	struct fake_device *device = session_of(fake, fd);

	if (fake_fails(fake))
		return fake->fail_errno;
	if (fake_fd(fake, fd) && fake_fd(fake, fd)->kind == FAKE_FD_TEXT)
		return fake_text_read(fake, fake_fd(fake, fd), buf, len);
	return device ? fake_state_read(device, buf, len) : -EBADF;
}

static ssize_t do_write(struct fake_kernel *fake, int fd, const void *buf, size_t len)
{
	struct fake_device *device = session_of(fake, fd);

	if (fake_fails(fake))
		return fake->fail_errno;
	return device ? fake_state_write(device, buf, len) : -EBADF;
}

static int do_poll(struct fake_kernel *fake, int fd, short events, int timeout_ms)
{
	struct fake_device *device = session_of(fake, fd);

	if (fake_fails(fake))
		return fake->fail_errno;
	fake->waited_ms += (uint64_t)timeout_ms * !(device && fake_state_poll(device, events));
	return device ? fake_state_poll(device, events) : fd < 0 ? 0 : POLLNVAL;
}

static int sys_mmap(const struct vfio_sys *sys, void *addr, size_t len, int prot, int flags, int fd, uint64_t offset,
		    void **ret)
{
	struct fake_kernel *fake = fake_of(sys);
	struct fake_device *device = device_of(fake, fd);

	if (fake_fails(fake))
		return fake->fail_errno;
	return device ? fake_region_mmap(fake, device, addr, len, prot, flags, offset, ret) : -EBADF;
}

static void sys_munmap(const struct vfio_sys *sys, void *addr, size_t len)
{
	munmap(addr, len);
	fake_of(sys)->mapped_bytes -= len;
}

static int do_ioctl(struct fake_kernel *fake, int fd, unsigned long request, void *arg)
{
	struct fake_fd *f = fake_fd(fake, fd);

	if (request == fake->counted)
		fake->count++;
	if (fake_fails(fake))
		return fake->fail_errno;
	if (request == fake->fail_request && fake->fail_times && fake->fail_after-- <= 0) {
		fake->fail_times--;
		return fake->fail_request_errno;
	}
	if (!f)
		return -EBADF;
	switch (f->kind) {
	case FAKE_FD_CONTAINER:
		return fake_container_ioctl(fake, f->index, request, arg);
	case FAKE_FD_GROUP:
		return fake_group_ioctl(fake, f->index, request, arg);
	case FAKE_FD_IOMMUFD:
		return fake_iommufd_ioctl(fake, f->index, request, arg);
	case FAKE_FD_DEVICE:
	case FAKE_FD_CDEV:
		return device_ioctl(fake, f, fd, request, arg);
	case FAKE_FD_STATE:
		return fake_state_ioctl(&fake->devices[f->index], request, arg);
	default:
		return -ENOTTY;
	}
}

/* What is begun is kept by one of the kernel's objects, so that a test sees whether it was ended. */
static int sys_prefault_begin(const struct vfio_sys *sys, void *host, uint64_t size, bool sample, const char *what,
			      const struct log *log, uint64_t *done, struct prefault **ret, struct err *err)
{
	struct fake_kernel *fake = fake_of(sys);

	if (fake_fails(fake))
		return err_sys(err, fake->fail_errno, "%s", what);
	fake->prefaults++;
	fake->prefaulted++;
	fake->unsampled += !sample;
	*ret = (struct prefault *)fake;
	return 0;
}

static int sys_prefault_end(const struct vfio_sys *sys, struct prefault *prefault, bool wait, int cancel_fd,
			    struct err *err)
{
	struct fake_kernel *fake = fake_of(sys);

	if (!prefault)
		return 0;
	fake->prefaults--;
	return wait && fake_fails(fake) ? err_sys(err, fake->fail_errno, "prefault") : 0;
}

static uint64_t sys_locked_limit(const struct vfio_sys *sys)
{
	return fake_of(sys)->locked_limit;
}

/* ---- Those that a device's thread may make beside others ---- */

#define LOCKED(type, call)                           \
	struct fake_kernel *fake = fake_of(sys);     \
	type ret;                                    \
	pthread_mutex_lock(&fake->lock);             \
	ret = call;                                  \
	pthread_mutex_unlock(&fake->lock);           \
	return ret

static void sys_close(const struct vfio_sys *sys, int fd)
{
	struct fake_kernel *fake = fake_of(sys);

	pthread_mutex_lock(&fake->lock);
	close_fd(fake, fd);
	pthread_mutex_unlock(&fake->lock);
}

static int sys_open(const struct vfio_sys *sys, const char *path, int flags)
{
	LOCKED(int, fake_fails(fake) ? fake->fail_errno : fake_open(fake, path));
}

static int sys_ioctl(const struct vfio_sys *sys, int fd, unsigned long request, void *arg)
{
	LOCKED(int, do_ioctl(fake, fd, request, arg));
}

static ssize_t sys_read(const struct vfio_sys *sys, int fd, void *buf, size_t len)
{
	LOCKED(ssize_t, do_read(fake, fd, buf, len));
}

static ssize_t sys_write(const struct vfio_sys *sys, int fd, const void *buf, size_t len)
{
	LOCKED(ssize_t, do_write(fake, fd, buf, len));
}

static int sys_poll(const struct vfio_sys *sys, int fd, short events, int timeout_ms)
{
	LOCKED(int, do_poll(fake, fd, events, timeout_ms));
}

extern const struct vfio_sys_ops fake_sys_ops;
const struct vfio_sys_ops fake_sys_ops = {
	.open = sys_open,
	.close = sys_close,
	.ioctl = sys_ioctl,
	.pread = sys_pread,
	.pwrite = sys_pwrite,
	.read = sys_read,
	.write = sys_write,
	.poll = sys_poll,
	.mmap = sys_mmap,
	.munmap = sys_munmap,
	.prefault_begin = sys_prefault_begin,
	.prefault_end = sys_prefault_end,
	.locked_limit = sys_locked_limit,
	.readlink = fake_sysfs_readlink,
	.read_file = fake_sysfs_read,
	.list = fake_sysfs_list,
};
