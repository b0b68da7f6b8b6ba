/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that host devices need, as a table: code that talks to VFIO or iommufd is given one and makes no
 * such call without it. vfio_sys_host() is the kernel; the tests pass a fake kernel.
 *
 * All calls return -errno.
 */
#pragma once

#include "core/err.h"
#include "core/log.h"

struct prefault;
struct vfio_sys;

struct vfio_sys_ops {
	/* A descriptor, always close-on-exec. */
	int (*open)(const struct vfio_sys *sys, const char *path, int flags);
	void (*close)(const struct vfio_sys *sys, int fd);
	/* What the ioctl returns, which for some is a count or a descriptor. */
	int (*ioctl)(const struct vfio_sys *sys, int fd, unsigned long request, void *arg);
	ssize_t (*pread)(const struct vfio_sys *sys, int fd, void *buf, size_t len, uint64_t offset);
	ssize_t (*pwrite)(const struct vfio_sys *sys, int fd, const void *buf, size_t len, uint64_t offset);
	/* Of a stream (a migration's data). */
	ssize_t (*read)(const struct vfio_sys *sys, int fd, void *buf, size_t len);
	ssize_t (*write)(const struct vfio_sys *sys, int fd, const void *buf, size_t len);
	/* Which of events (POLLIN, ...) are pending, POLLERR and POLLHUP in any case; 0 after timeout_ms. */
	int (*poll)(const struct vfio_sys *sys, int fd, short events, int timeout_ms);
	/* addr NULL: anywhere. */
	int (*mmap)(const struct vfio_sys *sys, void *addr, size_t len, int prot, int flags, int fd, uint64_t offset,
		    void **ret);
	void (*munmap)(const struct vfio_sys *sys, void *addr, size_t len);
	/* core/prefault.h; with sample, *ret is NULL if the memory seems to be present: the map that follows brings in
	 * the rest */
	int (*prefault_begin)(const struct vfio_sys *sys, void *host, uint64_t size, bool sample, const char *what,
			      const struct log *log, uint64_t *done, struct prefault **ret, struct err *err);
	int (*prefault_end)(const struct vfio_sys *sys, struct prefault *prefault, bool wait, int cancel_fd,
			    struct err *err);
	/* Locked memory this process may have, in bytes; UINT64_MAX when there is no limit. */
	uint64_t (*locked_limit)(const struct vfio_sys *sys);
	/* The target of a symbolic link, NUL-terminated. -ENAMETOOLONG if it does not fit. */
	int (*readlink)(const struct vfio_sys *sys, const char *path, char *buf, size_t size);
	/* A small file, NUL-terminated, trailing white space removed. */
	int (*read_file)(const struct vfio_sys *sys, const char *path, char *buf, size_t size);
	/* Calls fn with every name in a directory, "." and ".." left out, in no order. */
	int (*list)(const struct vfio_sys *sys, const char *path, void (*fn)(void *opaque, const char *name),
		    void *opaque);
};

/* Implementations begin their own struct with this. */
struct vfio_sys {
	const struct vfio_sys_ops *ops;
};

/* The kernel's. */
const struct vfio_sys *vfio_sys_host(void);

static inline int vfio_sys_ioctl(const struct vfio_sys *sys, int fd, unsigned long request, void *arg)
{
	return sys->ops->ioctl(sys, fd, request, arg);
}

/* An ioctl that takes a number instead of a pointer. */
static inline int vfio_sys_ioctl_value(const struct vfio_sys *sys, int fd, unsigned long request, unsigned long value)
{
	return sys->ops->ioctl(sys, fd, request, (void *)(uintptr_t)value);
}

/* Closes *fd unless it is -1 and leaves -1. */
static inline void vfio_sys_close(const struct vfio_sys *sys, int *fd)
{
	if (*fd >= 0)
		sys->ops->close(sys, *fd);
	*fd = -1;
}
