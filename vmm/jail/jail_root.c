/* SPDX-License-Identifier: Apache-2.0 */
/* See jail_root.h. */
#include "vmm/jail/jail_root.h"

#include "vmm/jail/jail_devices.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

/* <linux/mount.h> and <sys/mount.h> cannot be included together everywhere. */
#define TREE_CLONE 1u
#define MOVE_FROM_FD 4u
#define MOVE_TO_FD 0x40u
#define ATTR_READONLY 1ull
#define ATTR_NOSUID 2ull
#define ATTR_NODEV 4ull
#define ATTR_NOEXEC 8ull
#define ATTR_HARMLESS (ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)

#define MADE_MODE 01711 /* of a folder that mvmm makes */
#define MADE_DEPTH 64u  /* of such in each other, at most */
#define LOCK_TRIES 1000 /* a millisecond apart */

struct mount_attributes {
	uint64_t set, clear, propagation, user_ns_fd;
};

static int jail_root_failed(const struct jail_root *root, const char *what, struct err *err)
{
	return err_sys(err, -errno, "--jail %.200s: %s", root->path ?: root->options->config.dir, what);
}

/* ---- folders in the folder ---- */

/* A link in it, or a mount, leads nowhere: whoever may write there does not choose where we go. */
static int jail_root_open_in(int folder, const char *path, uint64_t more)
{
	const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				     .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | more};

	return (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));
}

/* Makes the folder, unless it is there. */
static int jail_root_make_one(struct jail_root *root, const char *path, struct err *err)
{
	char what[PATH_MAX + 40];
	int fd;

	snprintf(what, sizeof(what), "%.200s in it", path);
	if (mkdirat(root->host_fd, path, MADE_MODE) == 0)
		return fchmodat(root->host_fd, path, MADE_MODE, 0) < 0 ? jail_root_failed(root, what, err) : 0;
	if (errno != EEXIST)
		return jail_root_failed(root, what, err);
	fd = jail_root_open_in(root->host_fd, path, RESOLVE_NO_XDEV);
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return err_set(err, -EINVAL, "--jail %.200s: %.200s in it is no folder; remove it, or name another DIR",
			       root->path, path);
	if (fd < 0)
		return jail_root_failed(root, what, err);
	close(fd);
	return 0;
}

/* With all folders on the way. path is absolute. */
static int jail_root_make_all(struct jail_root *root, const char *path, struct err *err)
{
	char part[PATH_MAX];
	size_t len = 0;
	int code = 0;

	for (path += strspn(path, "/"); *path && !code; path += strspn(path, "/")) {
		size_t word = strcspn(path, "/");

		if (len + word + 2 > sizeof(part))
			return err_set(err, -ENAMETOOLONG, "--allow %.200s: too long", path);
		if (len)
			part[len++] = '/';
		memcpy(part + len, path, word);
		part[len += word] = 0;
		path += word;
		code = jail_root_make_one(root, part, err);
	}
	return code;
}

/* The folders in the open folder dir_fd that mvmm has made, and what it has made in them. Others and files stay. */
static void jail_root_unmake(int dir_fd, unsigned int depth)
{
	int again = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = again < 0 ? NULL : fdopendir(again);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		_cleanup_(fd_close) int fd = -1;
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		fd = openat(dir_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0 || (st.st_mode & 07777) != MADE_MODE || st.st_uid != geteuid())
			continue;
		if (depth)
			jail_root_unmake(fd, depth - 1);
		unlinkat(dir_fd, entry->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
	else
		fd_close(&again);
}

/* The last one holds it alone, for a moment. */
static int jail_root_lock(struct jail_root *root, struct err *err)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (int tries = 0; tries < LOCK_TRIES; tries++) {
		if (flock(root->host_fd, LOCK_SH | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			break;
		nanosleep(&moment, NULL);
	}
	return jail_root_failed(root, "a lock on it", err);
}

/* The folder becomes "/", which every path leads through. */
static bool jail_root_may_enter(const struct jail_config *jail, const struct stat *st)
{
	mode_t bit = st->st_uid == jail->uid ? S_IXUSR : st->st_gid == jail->gid ? S_IXGRP : S_IXOTH;

	return !jail->uid || st->st_mode & bit;
}

static int jail_root_open(struct jail_root *root, struct err *err)
{
	const char *dir = root->options->config.dir;
	struct stat st, host;

	root->path = realpath(dir, NULL);
	if (!root->path)
		return jail_root_failed(root, "the folder", err);
	root->host_fd = open(root->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (root->host_fd < 0 || fstat(root->host_fd, &st) < 0 || stat("/", &host) < 0)
		return jail_root_failed(root, "the folder", err);
	if (st.st_dev == host.st_dev && st.st_ino == host.st_ino)
		return err_set(err, -EINVAL, "--jail %.200s: it is the root of this host's files; name a folder of the "
			       "machine's own", dir);
	if (!jail_root_may_enter(&root->options->config, &st))
		return err_set(err, -EACCES, "--jail %.200s: user %u may not enter the folder; let others (chmod o+x), or give it "
			       "to him", dir, root->options->config.uid);
	if (st.st_uid != geteuid() && st.st_uid != 0 && st.st_uid != root->options->config.uid)
		return err_set(err, -EPERM, "--jail %.200s: the folder belongs to user %u; name one of your own", dir, st.st_uid);
	return jail_root_lock(root, err);
}

static int jail_root_check_allowed(struct jail_folder *folder, struct err *err)
{
	char *path = realpath(folder->path, NULL);
	struct stat st;

	if (!path || stat(path, &st) < 0) {
		free(path);
		return err_sys(err, -errno, "--allow %.200s", folder->path);
	}
	free(folder->path);
	folder->path = path;
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "--allow %.200s: not a folder; name the one that the files are in", path);
	for (size_t i = 0; i < 3; i++) {
		static const char *const ours[] = {"/dev", "/proc", "/sys"};
		size_t len = strlen(ours[i]);

		if (strncmp(path, ours[i], len) == 0 && (!path[len] || path[len] == '/'))
			return err_set(err, -EINVAL, "--allow %.200s: the jail has a %s of its own; leave it out", path, ours[i]);
	}
	if (!path[1])
		return err_set(err, -EINVAL, "--allow /: would show all files; name a folder");
	return 0;
}

int jail_root_find_allowed(struct jail_options *options, struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < options->allowed_count && !code; i++)
		code = jail_root_check_allowed(&options->allowed[i], err);
	return code;
}

int jail_root_make(struct jail_root *root, const struct jail_options *options, bool sysfs, struct err *err)
{
	int code;

	*root = (struct jail_root){.options = options, .sysfs = sysfs, .host_fd = -1, .root_fd = -1, .dev_fd = -1};
	code = jail_root_open(root, err);
	code = code ?: jail_root_make_all(root, "/dev", err);
	code = code ?: jail_root_make_all(root, "/proc", err);
	if (!code && sysfs)
		code = jail_root_make_all(root, "/sys", err);
	for (size_t i = 0; i < options->allowed_count && !code; i++)
		code = jail_root_make_all(root, options->allowed[i].path, err);
	if (code)
		jail_root_remove(root);
	return code;
}

/* ---- mounts ---- */

struct link_name {
	char text[32];
};

/* By which mount(2) finds an open folder. */
static struct link_name jail_root_name(int fd)
{
	struct link_name name;

	snprintf(name.text, sizeof(name.text), "/proc/self/fd/%d", fd);
	return name;
}

static int jail_root_restrict(int fd, uint64_t set, bool all)
{
	const struct mount_attributes attributes = {.set = set};
	unsigned int flags = AT_EMPTY_PATH | (all ? AT_RECURSIVE : 0);

	return (int)syscall(SYS_mount_setattr, fd, "", flags, &attributes, sizeof(attributes));
}

/* A copy of what is at `from`, with less rights, over a folder of the jail. *ret, if it is not NULL: the copy. */
static int jail_root_bind(int from, int to, uint64_t set, bool all, int *ret)
{
	unsigned int flags = TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | (all ? AT_RECURSIVE : 0);
	_cleanup_(fd_close) int tree = (int)syscall(SYS_open_tree, from, "", flags);

	if (tree < 0 || jail_root_restrict(tree, set, all) < 0 ||
	    syscall(SYS_move_mount, tree, "", to, "", MOVE_FROM_FD | MOVE_TO_FD) < 0)
		return -1;
	if (ret)
		*ret = take_fd(&tree);
	return 0;
}

static int jail_root_bind_path(struct jail_root *root, const char *from, const char *to, uint64_t set, bool all)
{
	_cleanup_(fd_close) int source = open(from, O_PATH | O_CLOEXEC);
	_cleanup_(fd_close) int target = source < 0 ? -1 : jail_root_open_in(root->root_fd, to, 0);

	return target < 0 ? -1 : jail_root_bind(source, target, set, all, NULL);
}

/* An empty file system over a folder of the jail: *ret is its root. */
static int jail_root_mount_empty(struct jail_root *root, const char *path, int *ret)
{
	_cleanup_(fd_close) int at = jail_root_open_in(root->root_fd, path, 0);

	if (at < 0 || mount("mvmm", jail_root_name(at).text, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755") < 0)
		return -1;
	*ret = jail_root_open_in(root->root_fd, path, 0);
	return *ret < 0 ? -1 : 0;
}

static int jail_root_mount_proc(struct jail_root *root)
{
	_cleanup_(fd_close) int proc = -1;

	if (jail_root_mount_empty(root, "proc", &proc) < 0 || mkdirat(proc, "self", 0755) < 0 ||
	    jail_root_bind_path(root, "/proc/self", "proc/self", ATTR_HARMLESS, false) < 0)
		return -1;
	return jail_root_restrict(proc, ATTR_READONLY, false);
}

static int jail_root_mount_dir(struct jail_root *root)
{
	_cleanup_(fd_close) int at = open(root->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat found, ours;

	if (at < 0 || fstat(at, &found) < 0 || fstat(root->host_fd, &ours) < 0)
		return -1;
	if (found.st_dev != ours.st_dev || found.st_ino != ours.st_ino) {
		errno = ESTALE;
		return -1;
	}
	return jail_root_bind(at, at, ATTR_HARMLESS, false, &root->root_fd);
}

int jail_root_mount(struct jail_root *root, struct err *err)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return jail_root_failed(root, "a copy of the host's mounts", err);
	if (jail_root_mount_dir(root) < 0)
		return jail_root_failed(root, "a mount of it", err);
	for (size_t i = 0; i < root->options->allowed_count; i++) {
		const char *path = root->options->allowed[i].path;

		if (jail_root_bind_path(root, path, path + 1, ATTR_HARMLESS, true) < 0)
			return err_sys(err, -errno, "--allow %.200s: a mount of it in the jail", path);
	}
	if (jail_root_mount_empty(root, "dev", &root->dev_fd) < 0)
		return jail_root_failed(root, "its /dev", err);
	if (jail_root_mount_proc(root) < 0)
		return jail_root_failed(root, "its /proc/self", err);
	if (root->sysfs && jail_root_bind_path(root, "/sys", "sys", ATTR_HARMLESS | ATTR_READONLY, true) < 0)
		return jail_root_failed(root, "its /sys", err);
	return 0;
}

/* The old root lies on the new one, where only umount2(2) and ".." find it. */
static int jail_root_pivot(struct jail_root *root)
{
	return fchdir(root->root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ? -1 : chdir("/");
}

int jail_root_enter(struct jail_root *root, struct err *err)
{
	const struct jail_config *jail = &root->options->config;
	int code = jail_devices_make(root->dev_fd, jail->uid, jail->gid, err);

	if (code)
		return code;
	if (jail_root_restrict(root->dev_fd, ATTR_READONLY, false) < 0)
		return jail_root_failed(root, "its /dev", err);
	if (jail_root_pivot(root) < 0)
		return jail_root_failed(root, "becoming the root", err);
	fd_close(&root->host_fd);
	fd_close(&root->root_fd);
	fd_close(&root->dev_fd);
	return 0;
}

int jail_root_leave(const struct jail_root *root, struct err *err)
{
	return umount2("/", MNT_DETACH) < 0 ? jail_root_failed(root, "leaving the host's files", err) : 0;
}

void jail_root_done(struct jail_root *root)
{
	fd_close(&root->host_fd);
	fd_close(&root->root_fd);
	fd_close(&root->dev_fd);
	free(take_ptr(root->path));
}

void jail_root_remove(struct jail_root *root)
{
	if (root->host_fd >= 0 && flock(root->host_fd, LOCK_EX | LOCK_NB) == 0)
		jail_root_unmake(root->host_fd, MADE_DEPTH);
	jail_root_done(root);
}
