/* SPDX-License-Identifier: Apache-2.0 */
/* See file_copy.h. */
#include "vmm/snapshot/file_copy.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define STEP MIB(16) /* between two ticks */

int file_copy_reflink(int from, int to)
{
	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (errno == EXDEV || errno == EINVAL || errno == ENOTTY || errno == ENOSYS || errno == EPERM)
		return -EOPNOTSUPP;
	return -errno;
}

int file_write(int fd, const void *data, size_t len, uint64_t offset)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static int file_copy_by_hand(int from, int to, off_t at, size_t len)
{
	char buffer[KIB(64)];

	while (len) {
		ssize_t n = pread(from, buffer, MIN(len, sizeof(buffer)), at);
		int code;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0; /* cut off meanwhile: zeros */
		code = file_write(to, buffer, (size_t)n, (uint64_t)at);
		if (code)
			return code;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Copies [at, at + len), which is data. */
static int file_copy_range(int from, int to, off_t at, size_t len)
{
	while (len) {
		off_t in = at, out = at;
		ssize_t n = copy_file_range(from, &in, to, &out, len, 0);

		if (n == 0 || (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)))
			return file_copy_by_hand(from, to, at, len);
		if (n < 0 && errno != EINTR)
			return -errno;
		n = MAX(n, 0);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int file_copy_extent(int from, int to, off_t at, off_t end, off_t size, const struct snapshot_progress *progress,
			    struct err *err)
{
	while (at < end) {
		size_t len = (size_t)MIN((uint64_t)(end - at), STEP);
		int code = snapshot_tick(progress, (uint64_t)at, (uint64_t)size, err);

		if (code)
			return code;
		code = file_copy_range(from, to, at, len);
		if (code)
			return err_sys(err, code, "copy");
		at += (off_t)len;
	}
	return 0;
}

int file_copy(int from, int to, const struct snapshot_progress *progress, struct err *err)
{
	struct stat st;
	off_t at = 0;

	if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
		return err_sys(err, -errno, "copy");
	while (at < st.st_size && (at = lseek(from, at, SEEK_DATA)) >= 0 && at < st.st_size) {
		off_t end = lseek(from, at, SEEK_HOLE);
		int code;

		if (end < 0)
			return err_sys(err, -errno, "copy");
		end = MIN(end, st.st_size);
		code = file_copy_extent(from, to, at, end, st.st_size, progress, err);
		if (code)
			return code;
		at = end;
	}
	return at < 0 && errno != ENXIO ? err_sys(err, -errno, "copy") : 0;
}
