/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_seen.h. */
#include "vmm/snapshot/snapshot_seen.h"

int snapshot_see(const struct snapshot *snapshot, struct snapshot_seen *ret, struct err *err)
{
	struct snapshot_seen seen;

	if (fstat(snapshot->state_fd, &seen.state) < 0 || fstat(snapshot->memory_fd, &seen.memory) < 0)
		return err_sys(err, -errno, "%.200s", snapshot->path);
	*ret = seen;
	return 0;
}

static bool snapshot_seen_is_same(const struct stat *now, const struct stat *then)
{
	return now->st_size == then->st_size && now->st_mtim.tv_sec == then->st_mtim.tv_sec &&
	       now->st_mtim.tv_nsec == then->st_mtim.tv_nsec;
}

/* Whether the path that the user wrote leads to what was opened. For two files: that of the state. */
static bool snapshot_seen_is_there(const struct snapshot *snapshot, const struct snapshot_seen *now)
{
	struct stat found, folder;

	if (stat(snapshot->path, &found) < 0)
		return false;
	if (!snapshot->folder)
		return found.st_ino == now->state.st_ino && found.st_dev == now->state.st_dev;
	return fstat(snapshot->dir_fd, &folder) == 0 && found.st_ino == folder.st_ino && found.st_dev == folder.st_dev;
}

int snapshot_check_seen(const struct snapshot *snapshot, const struct snapshot_seen *seen, struct err *err)
{
	struct snapshot_seen now;
	int code = snapshot_see(snapshot, &now, err);

	if (code)
		return code;
	if (!now.state.st_nlink || !now.memory.st_nlink || !snapshot_seen_is_there(snapshot, &now))
		return err_set(err, -ESTALE, "%.200s: the snapshot was removed or replaced since this process waits for it; "
			       "start another one with mvmm restore --wait", snapshot->path);
	if (!snapshot_seen_is_same(&now.state, &seen->state) || !snapshot_seen_is_same(&now.memory, &seen->memory))
		return err_set(err, -ESTALE, "%.200s: the snapshot was changed since this process waits for it; start "
			       "another one with mvmm restore --wait", snapshot->path);
	return 0;
}
