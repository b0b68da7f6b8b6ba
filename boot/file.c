/* SPDX-License-Identifier: Apache-2.0 */
/* See file.h. */
#include "boot/file.h"

#include <fcntl.h>
#include <sys/stat.h>

int boot_open_file(const char *option, const char *path, const char *file, int *ret_fd, uint64_t *ret_size,
		   struct err *err)
{
	/* O_NONBLOCK: a FIFO must not make us wait for its writer. */
	_cleanup_(fd_close) int fd = open(file ?: path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return err_sys(err, -errno, "%s %s: open", option, path);
	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s %s: stat", option, path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "%s %s: this is %s; give a regular file",
			       option, path, S_ISDIR(st.st_mode) ? "a directory" : "not a file");
	*ret_size = (uint64_t)st.st_size;
	*ret_fd = take_fd(&fd);
	return 0;
}

int boot_read(int fd, uint64_t offset, void *buf, size_t len, struct err *err)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "read at offset %llu", (unsigned long long)offset);
		if (n == 0)
			return err_set(err, -ENOEXEC, "truncated: the file ends at offset %llu, %zu bytes are missing",
				       (unsigned long long)offset, len);
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int boot_read_to_guest(int fd, uint64_t offset, struct guest_memory *memory, uint64_t gpa, uint64_t len,
		       struct err *err)
{
	void *host;
	int ret;

	if (!len)
		return 0;
	host = guest_memory_at(memory, gpa, len);
	if (!host)
		return err_set(err, -ENOSPC, "%llu KiB do not fit into guest memory at 0x%llx; give more --memory",
			       (unsigned long long)(len >> 10), (unsigned long long)gpa);
	ret = boot_read(fd, offset, host, len, err);
	guest_memory_dirty(memory, gpa, len);
	return ret;
}

int boot_read_kernel(const struct boot_file *file, uint64_t offset, struct guest_memory *memory, uint64_t gpa, uint64_t len,
		     struct err *err)
{
	int ret = boot_read_to_guest(file->fd, offset, memory, gpa, len, err);

	return ret < 0 ? err_prefix(err, ret, "--kernel %s", file->path) : 0;
}
