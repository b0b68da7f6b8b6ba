/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_target.h. */
#include "vmm/migration/disk_target.h"

#include <fcntl.h>
#include <linux/falloc.h>

#define ZEROS KIB(256) /* written at once if the file supports nothing better */

int disk_target_write(const struct disk_target *target, uint64_t offset, const uint8_t *data, size_t size,
		      struct err *err)
{
	while (size) {
		ssize_t n = pwrite(target->fd, data, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(err, n ? -errno : -EIO, "disk %s: write at %llu", target->id,
				       (unsigned long long)offset);
		offset += (uint64_t)n;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

static int disk_target_write_zeros(const struct disk_target *target, uint64_t offset, uint64_t size, struct err *err)
{
	_cleanup_(free_ptr) uint8_t *zeros = calloc(1, ZEROS);
	int code = zeros ? 0 : err_sys(err, -ENOMEM, "disk %s", target->id);

	for (uint64_t n; !code && size; offset += n, size -= n) {
		n = MIN(size, ZEROS);
		code = disk_target_write(target, offset, zeros, n, err);
	}
	return code;
}

int disk_target_zero(struct disk_target *target, uint64_t offset, uint64_t size, struct err *err)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};

	for (; target->cannot < ARRAY_SIZE(modes); target->cannot++) {
		int mode = modes[target->cannot] | FALLOC_FL_KEEP_SIZE;

		if (fallocate(target->fd, mode, (off_t)offset, (off_t)size) == 0)
			return 0;
		if (errno == EINTR)
			break; /* this time */
	}
	return disk_target_write_zeros(target, offset, size, err);
}
