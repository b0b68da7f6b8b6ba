/* SPDX-License-Identifier: Apache-2.0 */
/* See beneath.h. */
#include "core/beneath.h"

#include "core/thread.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#define TRIES 100 /* the kernel gives up if a folder on the way is renamed meanwhile */

static int beneath_open_in(int folder, const char *path, int flags)
{
	const struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC,
				     .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd;
	int tries = 0;

	do {
		fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR) && ++tries < TRIES);
	return fd < 0 ? -errno : (int)fd;
}

static int beneath_do_open(const char *folder, const char *path, int flags)
{
	size_t len = folder ? strlen(folder) : 0;
	_cleanup_(fd_close) int in = -1;

	if (!folder) {
		int fd = open(path, flags | O_CLOEXEC);

		return fd < 0 ? -errno : fd;
	}
	while (len && folder[len - 1] == '/')
		len--;
	if (strncmp(path, folder, len) != 0 || path[len] != '/')
		return -EXDEV;
	path += len + strspn(path + len, "/");
	in = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return in < 0 ? -errno : beneath_open_in(in, *path ? path : ".", flags);
}

struct beneath_open {
	const char *folder, *path;
	int flags;
};

static int beneath_open_there(void *argument)
{
	const struct beneath_open *open = argument;

	return beneath_do_open(open->folder, open->path, open->flags);
}

int beneath_open(const char *folder, const char *path, int flags)
{
	return thread_call(beneath_open_there, &(struct beneath_open){folder, path, flags});
}

int beneath_open_folder(const char *folder, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];
	size_t len = slash ? (size_t)(slash - path) + 1 : 0;
	int fd;

	if (len >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, len ? path : ".", len ?: 1);
	parent[len ?: 1] = 0;
	fd = beneath_open(folder, parent, O_RDONLY | O_DIRECTORY);
	if (fd >= 0)
		*name = path + len;
	return fd;
}
