/* SPDX-License-Identifier: Apache-2.0 */
/* See vfio_sys.h. The system calls of the host; no policy. */
#include "iommu/vfio_sys.h"

#include "core/errand.h"
#include "core/prefault.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static int vfio_sys_host_open(const struct vfio_sys *sys, const char *path, int flags)
{
	int fd = errand_open(path, flags | O_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

static void vfio_sys_host_close(const struct vfio_sys *sys, int fd)
{
	close(fd);
}

static int vfio_sys_host_ioctl(const struct vfio_sys *sys, int fd, unsigned long request, void *arg)
{
	int rc = ioctl(fd, request, arg);

	return rc < 0 ? -errno : rc;
}

static ssize_t vfio_sys_host_pread(const struct vfio_sys *sys, int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n = pread(fd, buf, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static ssize_t vfio_sys_host_pwrite(const struct vfio_sys *sys, int fd, const void *buf, size_t len, uint64_t offset)
{
	ssize_t n = pwrite(fd, buf, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static ssize_t vfio_sys_host_read(const struct vfio_sys *sys, int fd, void *buf, size_t len)
{
	ssize_t n = read(fd, buf, len);

	return n < 0 ? -errno : n;
}

static ssize_t vfio_sys_host_write(const struct vfio_sys *sys, int fd, const void *buf, size_t len)
{
	ssize_t n = write(fd, buf, len);

	return n < 0 ? -errno : n;
}

static int vfio_sys_host_poll(const struct vfio_sys *sys, int fd, short events, int timeout_ms)
{
	struct pollfd pollfd = {.fd = fd, .events = events};
	int n = poll(&pollfd, 1, timeout_ms);

	return n < 0 ? -errno : n ? pollfd.revents : 0;
}

static int vfio_sys_host_mmap(const struct vfio_sys *sys, void *addr, size_t len, int prot, int flags, int fd,
			      uint64_t offset, void **ret)
{
	void *p = mmap(addr, len, prot, flags, fd, (off_t)offset);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

static void vfio_sys_host_munmap(const struct vfio_sys *sys, void *addr, size_t len)
{
	munmap(addr, len);
}

static int vfio_sys_host_prefault_begin(const struct vfio_sys *sys, void *host, uint64_t size, bool sample,
					const char *what, const struct log *log, uint64_t *done, struct prefault **ret,
					struct err *err)
{
	*ret = NULL;
	return sample && prefault_seems_done(host, size) ? 0 : prefault_begin(host, size, what, log, done, ret, err);
}

static int vfio_sys_host_prefault_end(const struct vfio_sys *sys, struct prefault *prefault, bool wait, int cancel_fd,
				      struct err *err)
{
	return prefault_end(prefault, wait, cancel_fd, err);
}

static int vfio_sys_host_readlink(const struct vfio_sys *sys, const char *path, char *buf, size_t size)
{
	ssize_t n = errand_readlink(path, buf, size);

	if (n < 0)
		return -errno;
	if ((size_t)n >= size)
		return -ENAMETOOLONG;
	buf[n] = 0;
	return 0;
}

/* CAP_IPC_LOCK lifts the limit, but not in a user namespace: the first one has a number of its own (nsfs, ABI). */
static bool vfio_sys_host_may_lock_all(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
	char namespace[32];

	return syscall(SYS_capget, &head, caps) == 0 && caps[0].effective & 1u << CAP_IPC_LOCK &&
	       vfio_sys_host_readlink(NULL, "/proc/self/ns/user", namespace, sizeof(namespace)) == 0 &&
	       strcmp(namespace, "user:[4026531837]") == 0;
}

static uint64_t vfio_sys_host_locked_limit(const struct vfio_sys *sys)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || vfio_sys_host_may_lock_all())
		return UINT64_MAX;
	return limit.rlim_cur;
}

static int vfio_sys_host_read_file(const struct vfio_sys *sys, const char *path, char *buf, size_t size)
{
	_cleanup_(fd_close) int fd = errand_open(path, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		return -errno;
	while (n > 0 && isspace((unsigned char)buf[n - 1]))
		n--;
	buf[n] = 0;
	return 0;
}

static int vfio_sys_host_list(const struct vfio_sys *sys, const char *path, void (*fn)(void *opaque, const char *name),
			      void *opaque)
{
	struct dirent *entry;
	int fd = errand_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int code = -errno;

	if (!dir) {
		fd_close(&fd);
		return code;
	}
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			fn(opaque, entry->d_name);
	closedir(dir);
	return 0;
}

const struct vfio_sys *vfio_sys_host(void)
{
	static const struct vfio_sys_ops ops = {
		.open = vfio_sys_host_open,
		.close = vfio_sys_host_close,
		.ioctl = vfio_sys_host_ioctl,
		.pread = vfio_sys_host_pread,
		.pwrite = vfio_sys_host_pwrite,
		.read = vfio_sys_host_read,
		.write = vfio_sys_host_write,
		.poll = vfio_sys_host_poll,
		.mmap = vfio_sys_host_mmap,
		.munmap = vfio_sys_host_munmap,
		.prefault_begin = vfio_sys_host_prefault_begin,
		.prefault_end = vfio_sys_host_prefault_end,
		.locked_limit = vfio_sys_host_locked_limit,
		.readlink = vfio_sys_host_readlink,
		.read_file = vfio_sys_host_read_file,
		.list = vfio_sys_host_list,
	};
	static const struct vfio_sys sys = {.ops = &ops};

	return &sys;
}
