/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See folder.h. Only files with the names of a snapshot's are ever removed, so that a wrong path costs nobody his data.
 *
 * Another process may look for dead writers just when a temporary folder has been made and is not locked yet: whoever
 * has locked his folder looks whether it is still there, and makes another one if not.
 */
#include "vmm/snapshot/folder.h"

#include "core/errand.h"
#include "vmm/snapshot/file_copy.h"
#include "vmm/snapshot/prefetch.h"
#include "vmm/snapshot/state_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#define TRIES 20
#define TEMPORARY ".new-"
#define TEMPORARY_RANDOM 6u
#define DISKS "disks"

static const char *const folder_files[] = {
	"state", "memory", "machine.json", "kernel", "initrd", "prefetch", PREFETCH_NEW,
};

struct snapshot_folder {
	char *path; /* for messages */
	char *name; /* the last part of path */
	char temporary[NAME_MAX + 1];
	char **files; /* created */
	size_t count;
	int parent_fd, fd;
	bool replace, committed;
};

static int folder_fault(const char *path, int code, const char *what, struct err *err)
{
	if (code == -ENOSPC || code == -EDQUOT)
		return err_set(err, code, "%s: %s: no space left; free some, or choose a folder on another file system", path,
			       what);
	return err_sys(err, code, "%s: %s", path, what);
}

static bool folder_is_disk(const char *name)
{
	return strncmp(name, DISKS "/", 6) == 0 && !machine_name_check(name + 6, NULL);
}

static bool folder_is_file(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(folder_files); i++)
		if (strcmp(folder_files[i], name) == 0)
			return true;
	return false;
}

static int folder_open_at(int parent_fd, const char *name)
{
	int fd = errand_openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

static int folder_open_file(int fd, const char *name)
{
	int file = errand_openat(fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	return file < 0 ? -errno : file;
}

/* Calls fn for each name in the folder; nonzero ends it. */
static int folder_each(int fd, int (*fn)(void *opaque, const char *name), void *opaque)
{
	int again = errand_openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), code = 0;
	DIR *dir = again < 0 ? NULL : fdopendir(again);
	struct dirent *entry;

	if (!dir) {
		code = -errno;
		fd_close(&again);
		return code;
	}
	for (errno = 0; !code && (entry = readdir(dir)); errno = code ? errno : 0)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			code = fn(opaque, entry->d_name);
	if (!code && errno)
		code = -errno;
	closedir(dir);
	return code;
}

/* ---- removing ---- */

static int folder_remove_disk(void *opaque, const char *name)
{
	const int *fd = opaque;

	if (!machine_name_check(name, NULL))
		unlinkat(*fd, name, 0);
	return 0;
}

/* Removes a folder with the files of a snapshot; what else is in it stays, and so does the folder then. */
static int folder_remove(int parent_fd, const char *name)
{
	_cleanup_(fd_close) int fd = folder_open_at(parent_fd, name);
	_cleanup_(fd_close) int disks = -1;

	if (fd < 0)
		return fd;
	disks = folder_open_at(fd, DISKS);
	if (disks >= 0) {
		folder_each(disks, folder_remove_disk, &disks);
		unlinkat(fd, DISKS, AT_REMOVEDIR);
	}
	for (size_t i = 0; i < ARRAY_SIZE(folder_files); i++)
		unlinkat(fd, folder_files[i], 0);
	return unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* Whether no machine has the memory in this folder mapped; *memory keeps it so. */
static bool folder_is_free(int fd, int *memory)
{
	_cleanup_(fd_close) int file = folder_open_file(fd, "memory");

	if (file >= 0 && flock(file, LOCK_EX | LOCK_NB) < 0)
		return false;
	*memory = take_fd(&file);
	return true;
}

static int folder_remove_free(int parent_fd, const char *name)
{
	_cleanup_(fd_close) int fd = folder_open_at(parent_fd, name);
	_cleanup_(fd_close) int memory = -1;

	return fd >= 0 && folder_is_free(fd, &memory) ? folder_remove(parent_fd, name) : 0;
}

/* ---- dead writers ---- */

static bool folder_is_temporary(const struct snapshot_folder *folder, const char *name)
{
	size_t len = strlen(folder->name);

	if (name[0] != '.' || strncmp(name + 1, folder->name, len) != 0)
		return false;
	name += 1 + len;
	return strncmp(name, TEMPORARY, strlen(TEMPORARY)) == 0 && strlen(name) == strlen(TEMPORARY) + TEMPORARY_RANDOM;
}

static int folder_clean_one(void *opaque, const char *name)
{
	const struct snapshot_folder *folder = opaque;
	_cleanup_(fd_close) int fd = -1;

	if (!folder_is_temporary(folder, name))
		return 0;
	fd = folder_open_at(folder->parent_fd, name);
	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -EBUSY;
	folder_remove_free(folder->parent_fd, name);
	return 0;
}

static int folder_clean(struct snapshot_folder *folder, struct err *err)
{
	int code = folder_each(folder->parent_fd, folder_clean_one, folder);

	if (code == -EBUSY)
		return err_set(err, code, "%s: another process is writing a snapshot to it; wait for that, or choose another "
					  "folder", folder->path);
	return code ? folder_fault(folder->path, code, "its parent folder", err) : 0;
}

/* ---- what is at the place ---- */

static int folder_find_stranger(void *opaque, const char *name)
{
	char *stranger = opaque;

	if (folder_is_file(name) || strcmp(name, DISKS) == 0)
		return 0;
	snprintf(stranger, NAME_MAX + 1, "%s", name);
	return 1;
}

static int folder_find_strange_disk(void *opaque, const char *name)
{
	char *stranger = opaque;

	if (!machine_name_check(name, NULL))
		return 0;
	snprintf(stranger, NAME_MAX + 1, DISKS "/%.60s", name);
	return 1;
}

/* Looks for something that is no part of a snapshot, and would not be removed. */
static void folder_find_strangers(int fd, char stranger[NAME_MAX + 1])
{
	_cleanup_(fd_close) int disks = folder_open_at(fd, DISKS);

	if (!folder_each(fd, folder_find_stranger, stranger) && disks >= 0)
		folder_each(disks, folder_find_strange_disk, stranger);
}

/* Whether path is a snapshot that can be replaced, and is to be. */
static int folder_check_old(const struct snapshot_folder *folder, struct err *err)
{
	_cleanup_(fd_close) int fd = folder_open_at(folder->parent_fd, folder->name);
	_cleanup_(fd_close) int state = fd < 0 ? -1 : folder_open_file(fd, "state");
	_cleanup_(fd_close) int memory = -1;
	uint8_t header[SNAPSHOT_HEADER_SIZE] = {0};
	char stranger[NAME_MAX + 1] = "";

	if (state < 0 || pread(state, header, sizeof(header), 0) != sizeof(header) || !snapshot_state_is_header(header))
		return err_set(err, -EEXIST, "%s: is no snapshot and is not replaced; choose another folder", folder->path);
	if (!folder->replace)
		return err_set(err, -EEXIST, "%s: exists; add --replace, or choose another folder", folder->path);
	folder_find_strangers(fd, stranger);
	if (stranger[0])
		return err_set(err, -EEXIST,
			       "%s: has %.60s in it, which is no part of a snapshot; remove that, or choose another folder",
			       folder->path, stranger);
	if (!folder_is_free(fd, &memory))
		return err_set(err, -EBUSY,
			       "%s: its memory is mapped by a machine or read; end that, or choose another folder",
			       folder->path);
	return 0;
}

static int folder_check_place(const struct snapshot_folder *folder, struct err *err)
{
	struct stat st;

	if (fstatat(folder->parent_fd, folder->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : folder_fault(folder->path, -errno, "look for it", err);
	return folder_check_old(folder, err);
}

/* ---- begin ---- */

static int folder_split(struct snapshot_folder *folder, const char *path, char *parent, struct err *err)
{
	size_t len = strlen(path), start;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (start = len; start && path[start - 1] != '/';)
		start--;
	folder->path = strndup(path, len);
	folder->name = strndup(path + start, len - start);
	if (!folder->path || !folder->name)
		return err_sys(err, -ENOMEM, "%.200s", path);
	if (!folder->name[0] || strcmp(folder->name, ".") == 0 || strcmp(folder->name, "..") == 0)
		return err_set(err, -EINVAL, "%.200s: not the name of a new folder; write one such as snapshots/web", path);
	if (len >= PATH_MAX || 1 + len - start + strlen(TEMPORARY) + TEMPORARY_RANDOM > NAME_MAX)
		return err_set(err, -ENAMETOOLONG, "%.60s...: too long; choose a shorter name", path);
	memcpy(parent, start ? path : ".", start ?: 1);
	parent[start ?: 1] = 0;
	return 0;
}

static int folder_name_temporary(struct snapshot_folder *folder)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
	uint8_t random[TEMPORARY_RANDOM];
	char word[TEMPORARY_RANDOM + 1] = "";

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -errno;
	for (unsigned int i = 0; i < TEMPORARY_RANDOM; i++)
		word[i] = letters[random[i] % 32];
	snprintf(folder->temporary, sizeof(folder->temporary), ".%s" TEMPORARY "%s", folder->name, word);
	return 0;
}

/* -EAGAIN: somebody has taken it for a dead writer's, or the name is in use. */
static int folder_try_make(struct snapshot_folder *folder)
{
	_cleanup_(fd_close) int fd = -1;
	struct stat st;
	int code = folder_name_temporary(folder);

	if (code)
		return code;
	if (mkdirat(folder->parent_fd, folder->temporary, 0700) < 0)
		return errno == EEXIST ? -EAGAIN : -errno;
	fd = folder_open_at(folder->parent_fd, folder->temporary);
	if (fd == -ENOENT)
		return -EAGAIN;
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0) {
		if (st.st_nlink == 0)
			return -EAGAIN;
		folder->fd = take_fd(&fd);
		return 0;
	}
	code = fd < 0 ? fd : -errno;
	if (code != -EAGAIN)
		unlinkat(folder->parent_fd, folder->temporary, AT_REMOVEDIR);
	return code;
}

static int folder_make(struct snapshot_folder *folder, struct err *err)
{
	int code = -EAGAIN;

	for (unsigned int i = 0; code == -EAGAIN && i < TRIES; i++)
		code = folder_try_make(folder);
	return code ? folder_fault(folder->path, code, "create a folder", err) : 0;
}

static int folder_begin(struct snapshot_folder *folder, const char *path, struct err *err)
{
	char parent[PATH_MAX];
	int code = folder_split(folder, path, parent, err);

	if (code)
		return code;
	folder->parent_fd = errand_open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (folder->parent_fd < 0)
		return folder_fault(folder->path, -errno, "its parent folder", err);
	return folder_check_place(folder, err) ?: folder_clean(folder, err) ?: folder_make(folder, err);
}

int snapshot_folder_begin(const char *path, bool replace, struct snapshot_folder **ret, struct err *err)
{
	struct snapshot_folder *folder = calloc(1, sizeof(*folder));
	int code;

	if (!folder)
		return err_sys(err, -ENOMEM, "%.200s", path);
	folder->parent_fd = folder->fd = -1;
	folder->replace = replace;
	code = folder_begin(folder, path, err);
	if (code) {
		snapshot_folder_end(folder);
		return code;
	}
	*ret = folder;
	return 0;
}

/* ---- files ---- */

static int folder_remember(struct snapshot_folder *folder, const char *name)
{
	char **files = reallocarray(folder->files, folder->count + 1, sizeof(*files));

	if (!files)
		return -ENOMEM;
	folder->files = files;
	files[folder->count] = strdup(name);
	if (!files[folder->count])
		return -ENOMEM;
	folder->count++;
	return 0;
}

int snapshot_folder_create(struct snapshot_folder *folder, const char *name, int *fd, struct err *err)
{
	int file, code = folder_is_file(name) || folder_is_disk(name) ? folder_remember(folder, name) : -EINVAL;

	if (code)
		return folder_fault(folder->path, code, name, err);
	if (folder_is_disk(name) && mkdirat(folder->fd, DISKS, 0700) < 0 && errno != EEXIST)
		code = -errno;
	file = code ? -1 : errand_openat(folder->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file < 0) {
		code = code ?: -errno;
		free(folder->files[--folder->count]);
		return folder_fault(folder->path, code, name, err);
	}
	*fd = file;
	return 0;
}

int snapshot_folder_put(struct snapshot_folder *folder, const char *name, const void *data, size_t len, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	int code = snapshot_folder_create(folder, name, &fd, err);

	if (code)
		return code;
	code = file_write(fd, data, len, 0);
	return code ? folder_fault(folder->path, code, name, err) : 0;
}

int snapshot_folder_fault(const struct snapshot_folder *folder, int code, const char *name, struct err *err)
{
	return folder_fault(folder->path, code, name, err);
}

int snapshot_folder_drop(struct snapshot_folder *folder, const char *name)
{
	if (unlinkat(folder->fd, name, 0) < 0)
		return -errno;
	for (size_t i = 0; i < folder->count; i++) {
		if (strcmp(folder->files[i], name) == 0) {
			free(folder->files[i]);
			folder->files[i] = folder->files[--folder->count];
			break;
		}
	}
	return 0;
}

/* ---- the end ---- */

static int folder_sync_one(int fd, const char *name)
{
	_cleanup_(fd_close) int file = folder_open_file(fd, name);

	return file < 0 ? file : fsync(file) < 0 ? -errno : 0;
}

static int folder_sync(const struct snapshot_folder *folder, struct err *err)
{
	bool disks = false;
	int code = 0;

	for (size_t i = 0; !code && i < folder->count; i++) {
		disks = disks || folder_is_disk(folder->files[i]);
		code = folder_sync_one(folder->fd, folder->files[i]);
		if (code)
			return folder_fault(folder->path, code, folder->files[i], err);
	}
	code = disks ? folder_sync_one(folder->fd, DISKS) : 0;
	if (!code && fsync(folder->fd) < 0)
		code = -errno;
	return code ? folder_fault(folder->path, code, "sync", err) : 0;
}

static int folder_rename(const struct snapshot_folder *folder, const char *from, const char *to, unsigned int flags)
{
	return renameat2(folder->parent_fd, from, folder->parent_fd, to, flags) < 0 ? -errno : 0;
}

/* *flags: with which rename the folder came to its place. */
static int folder_place(struct snapshot_folder *folder, unsigned int *flags, struct err *err)
{
	int code = -ENOENT;

	if (folder->replace)
		code = folder_rename(folder, folder->temporary, folder->name, *flags = RENAME_EXCHANGE);
	if (code == -ENOENT)
		code = folder_rename(folder, folder->temporary, folder->name, *flags = RENAME_NOREPLACE);
	if (code == -EINVAL && *flags == RENAME_NOREPLACE) /* replaces an empty folder at most */
		code = folder_rename(folder, folder->temporary, folder->name, 0);
	if (code == -EEXIST || code == -ENOTEMPTY)
		return err_set(err, -EEXIST, "%s: exists now; choose another folder", folder->path);
	if (code == -EINVAL)
		return err_set(err, -EOPNOTSUPP,
			       "%s: its file system cannot exchange two folders; remove the old one first", folder->path);
	return code ? folder_fault(folder->path, code, "rename", err) : 0;
}

int snapshot_folder_commit(struct snapshot_folder *folder, bool sync, struct err *err)
{
	unsigned int flags = 0;
	int code = (sync ? folder_sync(folder, err) : 0) ?: folder_place(folder, &flags, err);

	if (code)
		return code;
	if (sync && fsync(folder->parent_fd) < 0) {
		code = folder_fault(folder->path, -errno, "sync its name", err);
		folder_rename(folder, folder->name, folder->temporary, flags);
		return code;
	}
	folder->committed = true;
	if (flags == RENAME_EXCHANGE)
		folder_remove_free(folder->parent_fd, folder->temporary);
	return 0;
}

void snapshot_folder_end(struct snapshot_folder *folder)
{
	if (!folder)
		return;
	if (folder->fd >= 0 && !folder->committed)
		folder_remove(folder->parent_fd, folder->temporary);
	for (size_t i = 0; i < folder->count; i++)
		free(folder->files[i]);
	fd_close(&folder->fd);
	fd_close(&folder->parent_fd);
	free(folder->files);
	free(folder->path);
	free(folder->name);
	free(folder);
}
