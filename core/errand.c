/* SPDX-License-Identifier: Apache-2.0 */
/* See errand.h. */
#include "core/errand.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "core/thread.h"

static int errand_result(int code)
{
	if (code >= 0)
		return code;
	errno = -code;
	return -1;
}

struct errand_open {
	int folder;
	const char *path;
	int flags;
	mode_t mode;
};

static int errand_do_open(void *argument)
{
	const struct errand_open *open = argument;
	int fd = openat(open->folder, open->path, open->flags, open->mode);

	return fd < 0 ? -errno : fd;
}

int errand_openat(int folder, const char *path, int flags, mode_t mode)
{
	return errand_result(thread_call(errand_do_open, &(struct errand_open){folder, path, flags, mode}));
}

int errand_open(const char *path, int flags, mode_t mode)
{
	return errand_openat(AT_FDCWD, path, flags, mode);
}

FILE *errand_fopen(const char *path)
{
	_cleanup_(fd_close) int fd = errand_open(path, O_RDONLY | O_CLOEXEC, 0);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (file)
		take_fd(&fd);
	return file;
}

struct errand_socket {
	int family, type, protocol;
};

static int errand_do_socket(void *argument)
{
	const struct errand_socket *wanted = argument;
	int fd = socket(wanted->family, wanted->type, wanted->protocol);

	return fd < 0 ? -errno : fd;
}

int errand_socket(int family, int type, int protocol)
{
	return errand_result(thread_call(errand_do_socket, &(struct errand_socket){family, type, protocol}));
}

struct errand_connect {
	int fd;
	const struct sockaddr *address;
	socklen_t len;
};

static int errand_do_connect(void *argument)
{
	const struct errand_connect *connection = argument;

	return connect(connection->fd, connection->address, connection->len) < 0 ? -errno : 0;
}

int errand_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	return errand_result(thread_call(errand_do_connect, &(struct errand_connect){fd, address, len}));
}

struct errand_socketpair {
	int type, *ret;
};

static int errand_do_socketpair(void *argument)
{
	const struct errand_socketpair *pair = argument;

	return socketpair(AF_UNIX, pair->type | SOCK_CLOEXEC, 0, pair->ret) < 0 ? -errno : 0;
}

int errand_socketpair(int type, int ret[2])
{
	return errand_result(thread_call(errand_do_socketpair, &(struct errand_socketpair){type, ret}));
}

struct errand_unlink {
	int folder;
	const char *path;
	int flags;
};

static int errand_do_unlink(void *argument)
{
	const struct errand_unlink *unlink = argument;

	return unlinkat(unlink->folder, unlink->path, unlink->flags) < 0 ? -errno : 0;
}

int errand_unlinkat(int folder, const char *path, int flags)
{
	return errand_result(thread_call(errand_do_unlink, &(struct errand_unlink){folder, path, flags}));
}

int errand_unlink(const char *path)
{
	return errand_unlinkat(AT_FDCWD, path, 0);
}

static int errand_do_memfd(void *argument)
{
	int fd = memfd_create(argument, MFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int errand_memfd(const char *name)
{
	return errand_result(thread_call(errand_do_memfd, (void *)(uintptr_t)name));
}

struct errand_readlink {
	const char *path;
	char *buf;
	size_t size;
};

static int errand_do_readlink(void *argument)
{
	const struct errand_readlink *link = argument;
	ssize_t n = readlink(link->path, link->buf, link->size);

	return n < 0 ? -errno : (int)n;
}

ssize_t errand_readlink(const char *path, char *buf, size_t size)
{
	return errand_result(thread_call(errand_do_readlink, &(struct errand_readlink){path, buf, size}));
}
