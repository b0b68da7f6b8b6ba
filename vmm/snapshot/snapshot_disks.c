/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_disks.h. */
#include "vmm/snapshot/snapshot_disks.h"

#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

int snapshot_disks_reflink(int from, int to)
{
	return ioctl(to, FICLONE, from) < 0 ? -errno : 0;
}

static int snapshot_disks_file_of(const struct snapshot_files *files, const char *id)
{
	for (size_t i = 0; i < files->disk_count; i++)
		if (strcmp(files->disks[i].id, id) == 0)
			return files->disks[i].fd;
	return -1;
}

/* A trial: the reflink of what the disk has now is replaced by that of the pause. */
static int snapshot_disks_try(const struct snapshot_take_config *config, const struct disk_copy *disk, struct err *err)
{
	int to = snapshot_disks_file_of(config->files, disk->id), code;

	if (to < 0)
		return err_set(err, -EINVAL, "%s: there is no file for this disk", disk->id);
	if (config->request->disks != SNAPSHOT_DISKS_REFLINK)
		return 0;
	code = snapshot_disks_reflink(disk->fd, to);
	return !code ? 0 : err_set(err, -ENOTSUP, "%s: cannot be kept as a reflink beside the snapshot (%s); write the "
				   "snapshot to the disk's file system, if that has reflinks (XFS, Btrfs), or add "
				   "--disks copy, or --disks none if the disk will not be written any more",
				   disk->id, strerror(-code));
}

int snapshot_disks_check(const struct snapshot_take_config *config, struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < config->disk_count && !code && config->request->disks != SNAPSHOT_DISKS_NONE; i++)
		code = snapshot_disks_try(config, &config->disks[i], err);
	return code;
}

int snapshot_disks_identify(const char *id, int fd, struct snapshot_disk *ret, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s", id);
	*ret = (struct snapshot_disk){
		.size = (uint64_t)st.st_size, .inode = st.st_ino, .device = st.st_dev,
		.mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec,
	};
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	return 0;
}

int snapshot_disks_keep(const struct snapshot_take_config *config, struct snapshot_disk disks[WIRE_MAX_DISKS],
			size_t *count, struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < config->disk_count && !code; i++) {
		const struct disk_copy *disk = &config->disks[i];

		code = snapshot_disks_identify(disk->id, disk->fd, &disks[i], err);
		disks[i].size = disk->size; /* that the guest sees; of a block device, too */
		if (!code && config->request->disks == SNAPSHOT_DISKS_REFLINK)
			code = snapshot_disks_reflink(disk->fd, snapshot_disks_file_of(config->files, disk->id));
		if (code && err && !err->text[0])
			err_sys(err, code, "%s: reflink", disk->id);
	}
	if (!code)
		*count = config->disk_count;
	return code;
}
