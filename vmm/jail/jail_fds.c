/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See jail_fds.h. The folder of /proc knows since Linux 6.2 how many there are: then the numbers are tried from 0 on. To read
 * the folder takes five times as long, since the kernel makes an inode for each; it shows the rest, whose numbers may be above
 * the limit of this process.
 */
#include "vmm/jail/jail_fds.h"

#include "core/util.h"

#include <dirent.h>

#define FOLDER "/proc/self/fd"
#define TRIED 4096 /* numbers: all of them when another thread closes one that was counted */

static int jail_fds_read(int first, int (*fn)(void *opaque, int fd, const struct stat *st), void *opaque)
{
	DIR *dir = opendir(FOLDER);
	struct dirent *entry;
	struct stat st;
	int code = dir ? 0 : -errno;

	while (!code && (entry = readdir(dir))) {
		int fd = (int)strtol(entry->d_name, NULL, 10);

		if (entry->d_name[0] != '.' && fd >= first && fstat(fd, &st) == 0)
			code = fn(opaque, fd, &st);
	}
	if (dir)
		closedir(dir);
	return code;
}

int jail_fds_each(int (*fn)(void *opaque, int fd, const struct stat *st), void *opaque)
{
	struct stat st;
	off_t left;
	int fd = 0, code = 0;

	if (stat(FOLDER, &st) < 0)
		return -errno;
	for (left = st.st_size; left && fd < TRIED && !code; fd++) {
		if (fstat(fd, &st) < 0)
			continue;
		code = fn(opaque, fd, &st);
		left--;
	}
	return !code && (left || !fd) ? jail_fds_read(fd, fn, opaque) : code;
}
