/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See jail_fds.h. The folder of /proc knows since Linux 6.2 how many there are: then the numbers are tried from 0 on. To read
 * the folder takes five times as long, since the kernel makes an inode for each.
 */
#include "vmm/jail/jail_fds.h"

#include "core/util.h"

#include <dirent.h>
#include <sys/resource.h>

#define FOLDER "/proc/self/fd"

static int jail_fds_read(int (*fn)(void *opaque, int fd, const struct stat *st), void *opaque)
{
	DIR *dir = opendir(FOLDER);
	struct dirent *entry;
	struct stat st;
	int code = dir ? 0 : -errno;

	while (!code && (entry = readdir(dir))) {
		int fd = (int)strtol(entry->d_name, NULL, 10);

		if (entry->d_name[0] != '.' && fstat(fd, &st) == 0)
			code = fn(opaque, fd, &st);
	}
	if (dir)
		closedir(dir);
	return code;
}

int jail_fds_each(int (*fn)(void *opaque, int fd, const struct stat *st), void *opaque)
{
	struct rlimit limit;
	struct stat st;
	off_t left;
	int code = 0;

	if (stat(FOLDER, &st) < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	left = st.st_size;
	if (!left)
		return jail_fds_read(fn, opaque);
	/* Another thread may close one that was counted. */
	for (int fd = 0; left && (rlim_t)fd < limit.rlim_max && !code; fd++) {
		if (fstat(fd, &st) < 0)
			continue;
		code = fn(opaque, fd, &st);
		left--;
	}
	return code;
}
