/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the lock on a virtio disk's image also keeps out the machines of other hosts. The lock of a block device is
 * this host's own, and so is that of a file system which does not pass locks on. A local file system needs none: other
 * hosts do not have its files. Asked before a guest continues that may run on another host. See blk_internal.h.
 */
#include "devices/virtio/blk_internal.h"

#include "core/errand.h"

#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* Numbers of file systems that <linux/magic.h> of some systems lacks. */
#define BCACHEFS 0xca451a4eu
#define CIFS 0xff534d42u
#define SMB2 0xfe534d42u
#define CEPH 0x00c36400u
#define GFS2 0x01161970u
#define JFS 0x3153464au
#define OCFS2 0x7461636fu
#define XFS 0x58465342u
#define ZFS 0x2fc12fc1u

/*
 * File systems of one host, and those that ask the others for each lock (with a word of the mount's options, if any).
 */
static const struct {
	uint32_t type;
	const char *needs;
} guarded[] = {
	{EXT4_SUPER_MAGIC}, {XFS}, {BTRFS_SUPER_MAGIC}, {TMPFS_MAGIC}, {HUGETLBFS_MAGIC}, {RAMFS_MAGIC},
	{OVERLAYFS_SUPER_MAGIC}, {F2FS_SUPER_MAGIC}, {BCACHEFS}, {ZFS}, {JFS}, {REISERFS_SUPER_MAGIC},
	{NFS_SUPER_MAGIC, "local_lock=none"}, {CEPH}, {CIFS}, {SMB2}, {GFS2}, {OCFS2},
};

const char *blk_guard_judge(mode_t mode, uint32_t type, const char *mount)
{
	if (S_ISBLK(mode))
		return "the lock of a block device is this host's alone";
	for (size_t i = 0; i < ARRAY_SIZE(guarded); i++)
		if (guarded[i].type == type)
			return !guarded[i].needs || strstr(mount, guarded[i].needs) ?
			       NULL : "its file system is mounted without the other hosts' locks";
	return "its file system may keep locks to this host";
}

/* The line of the mount that has the file; "" if it is not found. The caller frees it. */
static char *blk_guard_find_mount(dev_t device)
{
	FILE *mounts = errand_fopen("/proc/self/mountinfo");
	unsigned int major, minor;
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (mounts && !found && getline(&line, &room, mounts) > 0)
		found = sscanf(line, "%*u %*u %u:%u ", &major, &minor) == 2 && makedev(major, minor) == device;
	if (mounts)
		fclose(mounts);
	if (!found)
		free(take_ptr(line));
	return line ?: strdup("");
}

const char *blk_guard(const struct blk_file *file)
{
	_cleanup_(free_ptr) char *mount = NULL;
	struct statfs fs;
	struct stat st;

	if (file->readonly)
		return NULL;
	if (file->lockless)
		return "it has lock=off";
	if (fstat(file->fd, &st) < 0 || fstatfs(file->fd, &fs) < 0)
		return "it cannot be looked at";
	mount = blk_guard_find_mount(st.st_dev);
	return blk_guard_judge(st.st_mode, (uint32_t)fs.f_type, mount ?: "");
}
