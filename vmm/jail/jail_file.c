/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_file.h. */
#include "vmm/jail/jail_file.h"

#include <fcntl.h>

int jail_file_write(int folder, const char *path, const char *text)
{
	_cleanup_(fd_close) int fd = openat(folder, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int jail_file_read(int folder, const char *path, char *text, size_t size)
{
	_cleanup_(fd_close) int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t used = 0;
	ssize_t n = fd < 0 ? -1 : 1;

	while (n > 0 && used + 1 < size) {
		n = read(fd, text + used, size - 1 - used);
		used += (size_t)MAX(n, 0);
	}
	if (n < 0)
		return -errno;
	text[used] = 0;
	return 0;
}
