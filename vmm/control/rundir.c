/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See rundir.h.
 *
 * The name is reserved by an open-file-description lock on "pid" (fcntl(2), F_OFD_SETLK). Between open and lock, the
 * owner may have removed the file; if the locked file has no name any more, the claim starts over.
 *
 * The folder can be removed while the machine runs: a logout empties $XDG_RUNTIME_DIR. Therefore the name is also
 * reserved by an abstract UNIX socket, and the owner watches its folder and makes it again.
 */
#include "vmm/control/rundir.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "core/errand.h"
#include "vmm/config/config.h"

#define CLAIM_TRIES 50 /* a millisecond apart */

struct rundir {
	char *path;
	char name[MACHINE_MAX_NAME + 1];
	int base_fd, dir_fd, pid_fd;
	int name_fd;  /* the abstract socket, or -1: another user has taken that address */
	uint64_t tree; /* the mount of "/"; 0: not asked for yet */
};

static void rundir_free(struct rundir *rundir)
{
	fd_close(&rundir->base_fd);
	fd_close(&rundir->dir_fd);
	fd_close(&rundir->pid_fd);
	fd_close(&rundir->name_fd);
	free(rundir->path);
	free(rundir);
}

/* The folder of all runtime folders, into path (PATH_MAX). */
static int rundir_base_path(char *path, struct err *err)
{
	const char *base = getenv("XDG_RUNTIME_DIR");

	if (!base || !*base)
		base = "/run";
	else if (*base != '/')
		return err_set(err, -EINVAL, "XDG_RUNTIME_DIR=%.100s: not an absolute path; set it to one", base);
	if (snprintf(path, PATH_MAX, "%s/mvmm", base) >= PATH_MAX)
		return err_set(err, -EINVAL, "XDG_RUNTIME_DIR: too long; set it to a shorter path");
	return 0;
}

static int rundir_open_base(const char *path, bool make, int *ret, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	struct stat st;

	if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_sys(err, -errno,
			       "the runtime folder %s cannot be created; set XDG_RUNTIME_DIR to a folder of your own",
			       path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_sys(err, -errno, "the runtime folder %s", path);
	if (fstat(fd, &st) < 0 || (st.st_uid != geteuid() && st.st_uid != 0 && (make || geteuid() != 0)))
		return err_set(err, -EPERM,
			       "the runtime folder %s belongs to another user; set XDG_RUNTIME_DIR to a folder of your own",
			       path);
	*ret = take_fd(&fd);
	return 0;
}

/* Removes every file in the folder except "pid", whose lock makes the caller the owner. */
static void rundir_empty_folder(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, "pid") != 0 && entry->d_type != DT_DIR)
			unlinkat(dir_fd, entry->d_name, 0);
	if (dir)
		closedir(dir);
}

static void rundir_remove_folder(const struct rundir *rundir)
{
	rundir_empty_folder(rundir->dir_fd);
	unlinkat(rundir->dir_fd, "pid", 0);
	unlinkat(rundir->base_fd, rundir->name, AT_REMOVEDIR);
}

static pid_t rundir_read_pid(int fd)
{
	char text[24] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

pid_t rundir_pid(const struct rundir *rundir)
{
	return rundir_read_pid(rundir->pid_fd);
}

/* Opens and locks the folder's pid file: 0, -EAGAIN if another process has locked it (*pid: which), other errnos. */
static int rundir_lock_pid(int dir_fd, int flags, int *ret, pid_t *pid)
{
	_cleanup_(fd_close) int fd = openat(dir_fd, "pid", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		*pid = rundir_read_pid(fd);
		return errno == EACCES ? -EAGAIN : -errno;
	}
	if (fstat(fd, &st) < 0 || st.st_nlink == 0)
		return -ENOENT;
	*ret = take_fd(&fd);
	return 0;
}

/* The number in the namespace of the /proc that is mounted. */
static pid_t rundir_own_pid(void)
{
	char text[24] = "";

	return errand_readlink("/proc/self", text, sizeof(text) - 1) > 0 ? (pid_t)strtol(text, NULL, 10) : getpid();
}

static int rundir_try_claim(struct rundir *rundir, pid_t *pid)
{
	bool stale = mkdirat(rundir->base_fd, rundir->name, 0700) < 0;
	char text[24];
	int code, len;

	if (stale && errno != EEXIST)
		return -errno;
	fd_close(&rundir->dir_fd);
	rundir->dir_fd = openat(rundir->base_fd, rundir->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (rundir->dir_fd < 0)
		return -errno;
	code = rundir_lock_pid(rundir->dir_fd, O_CREAT, &rundir->pid_fd, pid);
	if (code)
		return code;
	if (stale) {
		rundir_empty_folder(rundir->dir_fd);
		if (ftruncate(rundir->pid_fd, 0) < 0)
			return -errno;
	}
	len = snprintf(text, sizeof(text), "%d\n", rundir_own_pid());
	return pwrite(rundir->pid_fd, text, (size_t)len, 0) == len ? 0 : -EIO;
}

/*
 * -ENOENT: the last owner is just exiting. -EAGAIN without a live process: another process is just cleaning up, or has
 * not written its number yet. Both pass.
 */
static int rundir_claim_lock(struct rundir *rundir, pid_t *pid)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	int code = -ENOENT;

	for (int tries = 0; tries < CLAIM_TRIES && (code == -ENOENT || code == -EAGAIN); tries++) {
		if (tries)
			nanosleep(&moment, NULL);
		*pid = 0;
		code = rundir_try_claim(rundir, pid);
		if (code == -EAGAIN && *pid > 0 && (kill(*pid, 0) == 0 || errno != ESRCH))
			break;
	}
	return code;
}

/* ---- the abstract socket ---- */

/* Each mount namespace has a mount of its own; to ask for its name in /proc takes ten times as long. */
static uint64_t rundir_find_tree(void)
{
	struct statx stx;

	if (statx(AT_FDCWD, "/", AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, &stx) < 0)
		return 1;
	return stx.stx_mask & STATX_MNT_ID ? stx.stx_mnt_id : (uint64_t)stx.stx_dev_major << 32 | stx.stx_dev_minor | 1;
}

/*
 * One address for each user, file system tree and path: containers that share a network may have machines of one name.
 */
static socklen_t rundir_name_address(struct rundir *rundir, struct sockaddr_un *address)
{
	uint64_t hash = 14695981039346656037u;
	int len;

	if (!rundir->tree)
		rundir->tree = rundir_find_tree();
	for (const char *c = rundir->path; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 1099511628211u;
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	len = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "mvmm/%u/%llx/%016llx/%s", geteuid(),
		       (unsigned long long)rundir->tree, (unsigned long long)hash, rundir->name);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

/* The process that listens at the address: 0 if that is another user's, or cannot be found out. */
static pid_t rundir_name_owner(const struct sockaddr_un *address, socklen_t len)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);

	if (fd < 0 || connect(fd, (const struct sockaddr *)address, len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid())
		return 0;
	return peer.pid;
}

static int rundir_try_name(struct rundir *rundir, const struct sockaddr_un *address, socklen_t len)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)address, len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	rundir->name_fd = take_fd(&fd);
	return 0;
}

/*
 * 0, also if another user is in the way; or -EAGAIN and the owner. A process that has just released the lock of the
 * folder may need a moment to close its socket.
 */
static int rundir_claim_name(struct rundir *rundir, pid_t *pid)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct sockaddr_un address;
	socklen_t len = rundir_name_address(rundir, &address);
	int code = rundir_try_name(rundir, &address, len);

	if (code == -EADDRINUSE)
		*pid = rundir_name_owner(&address, len);
	for (int tries = 1; tries < CLAIM_TRIES && code == -EADDRINUSE && *pid; tries++) {
		nanosleep(&moment, NULL);
		code = rundir_try_name(rundir, &address, len);
	}
	return code != -EADDRINUSE ? code : *pid ? -EAGAIN : 0;
}

/* ---- claim and release ---- */

static int rundir_claim_all(struct rundir *rundir, struct err *err)
{
	pid_t pid = 0;
	int code = rundir_claim_lock(rundir, &pid);

	if (!code) {
		code = rundir_claim_name(rundir, &pid);
		if (code)
			rundir_remove_folder(rundir);
	}
	if (code == -EAGAIN)
		return err_set(err, -EADDRINUSE,
			       "--name %s: in use by process %d; choose another name or stop that machine", rundir->name,
			       pid);
	return code ? err_sys(err, code, "--name %s: the folder %s", rundir->name, rundir->path) : 0;
}

int rundir_claim(const char *name, struct rundir **ret, struct err *err)
{
	struct rundir *rundir = calloc(1, sizeof(*rundir));
	char path[PATH_MAX];
	int code;

	if (!rundir)
		return err_sys(err, -ENOMEM, "--name %s", name);
	rundir->base_fd = rundir->dir_fd = rundir->pid_fd = rundir->name_fd = -1;
	snprintf(rundir->name, sizeof(rundir->name), "%s", name);
	code = machine_name_check(name, err) ?: rundir_base_path(path, err) ?:
	       rundir_open_base(path, true, &rundir->base_fd, err);
	if (!code && asprintf(&rundir->path, "%s/%s", path, name) < 0) {
		rundir->path = NULL;
		code = err_sys(err, -ENOMEM, "--name %s", name);
	}
	code = code ?: rundir_claim_all(rundir, err);
	if (code) {
		rundir_free(rundir);
		return code;
	}
	*ret = rundir;
	return 0;
}

/* ---- another name ---- */

/* Whether the machine runs; the folder of a dead one is removed. */
static bool rundir_is_live(int base_fd, const char *name, pid_t *pid)
{
	_cleanup_(fd_close) int dir_fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_(fd_close) int pid_fd = -1;
	int code;

	if (dir_fd < 0)
		return false;
	code = rundir_lock_pid(dir_fd, 0, &pid_fd, pid);
	if (code == -EAGAIN)
		return *pid > 0;
	if (!code) {
		rundir_empty_folder(dir_fd);
		unlinkat(dir_fd, "pid", 0);
	}
	unlinkat(base_fd, name, AT_REMOVEDIR); /* fails if the name was just claimed */
	return false;
}

/* The folder of a dead machine makes room. */
static int rundir_move(const struct rundir *rundir, const char *name, pid_t *pid)
{
	int code;

	for (int tries = 0; tries < 2; tries++) {
		code = renameat2(rundir->base_fd, rundir->name, rundir->base_fd, name, RENAME_NOREPLACE) < 0 ? -errno : 0;
		if (code != -EEXIST)
			return code;
		if (rundir_is_live(rundir->base_fd, name, pid))
			return -EAGAIN;
	}
	return code;
}

int rundir_rename(struct rundir *rundir, const char *name, struct err *err)
{
	struct rundir to = {.name_fd = -1, .tree = rundir->tree};
	size_t base = strlen(rundir->path) - strlen(rundir->name);
	pid_t pid = 0;
	int code = machine_name_check(name, err);

	if (code || strcmp(name, rundir->name) == 0)
		return code;
	snprintf(to.name, sizeof(to.name), "%s", name);
	if (asprintf(&to.path, "%.*s%s", (int)base, rundir->path, name) < 0)
		return err_sys(err, -ENOMEM, "--name %s", name);
	code = rundir_claim_name(&to, &pid) ?: rundir_move(rundir, name, &pid);
	if (code) {
		fd_close(&to.name_fd);
		free(to.path);
		if (code == -EAGAIN)
			return err_set(err, -EADDRINUSE,
				       "--name %s: in use by process %d; choose another name or stop that machine", name, pid);
		return err_sys(err, code, "--name %s", name);
	}
	free(rundir->path);
	rundir->path = to.path;
	memcpy(rundir->name, to.name, sizeof(to.name));
	fd_close(&rundir->name_fd);
	rundir->name_fd = to.name_fd;
	return 0;
}

void rundir_release(struct rundir *rundir)
{
	if (!rundir)
		return;
	fd_close(&rundir->name_fd); /* who gets the lock next finds the address free */
	rundir_remove_folder(rundir);
	rundir_free(rundir);
}

void rundir_abandon(const struct rundir *rundir)
{
	if (!rundir)
		return;
	unlinkat(rundir->dir_fd, "control.sock", 0);
	unlinkat(rundir->dir_fd, "pid", 0);
	unlinkat(rundir->base_fd, rundir->name, AT_REMOVEDIR);
}

/* The address of a socket in a folder: its path, or a path through the open folder if the first is too long. */
static socklen_t rundir_socket_address(const char *path, int dir_fd, struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (snprintf(address->sun_path, sizeof(address->sun_path), "%s/control.sock", path) >=
	    (int)sizeof(address->sun_path))
		snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/control.sock", dir_fd);
	return sizeof(*address);
}

int rundir_listen(struct rundir *rundir, int *ret_fd, struct err *err)
{
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	socklen_t len = rundir_socket_address(rundir->path, rundir->dir_fd, &address);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 16) < 0)
		return err_sys(err, -errno, "control socket in %s", rundir->path);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* ---- a folder that somebody removes ---- */

/* Whether fd, an open file of ours, is what name in the folder dir_fd leads to. */
static bool rundir_is_there(int fd, int dir_fd, const char *name)
{
	struct stat ours, found;

	return fstat(fd, &ours) == 0 && fstatat(dir_fd, name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
	       ours.st_dev == found.st_dev && ours.st_ino == found.st_ino;
}

static bool rundir_is_whole(const struct rundir *rundir)
{
	_cleanup_(fd_close) int dir_fd = open(rundir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return dir_fd >= 0 && rundir_is_there(rundir->pid_fd, dir_fd, "pid") &&
	       faccessat(dir_fd, "control.sock", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Claims the folder once more; the old one, if it is still somewhere, is given up. */
static int rundir_claim_again(struct rundir *rundir, struct err *err)
{
	struct rundir again = *rundir;
	char path[PATH_MAX];
	pid_t pid = 0;
	int code;

	again.base_fd = again.dir_fd = again.pid_fd = -1;
	snprintf(path, sizeof(path), "%.*s", (int)(strlen(rundir->path) - strlen(rundir->name) - 1), rundir->path);
	code = rundir_open_base(path, true, &again.base_fd, err);
	if (code)
		return code;
	unlinkat(rundir->dir_fd, "pid", 0);
	fd_close(&rundir->pid_fd);
	code = rundir_claim_lock(&again, &pid);
	if (code) {
		fd_close(&again.base_fd);
		fd_close(&again.dir_fd);
		fd_close(&again.pid_fd); /* its lock would keep out the next attempt */
		return err_sys(err, code, "the folder %s", rundir->path);
	}
	fd_close(&rundir->base_fd);
	fd_close(&rundir->dir_fd);
	*rundir = again;
	return 0;
}

int rundir_restore(struct rundir *rundir, int *ret_fd, struct err *err)
{
	int code;

	if (rundir_is_whole(rundir))
		return 0;
	code = rundir_claim_again(rundir, err) ?: rundir_listen(rundir, ret_fd, err);
	return code ?: 1;
}

/* ---- for clients ---- */

int rundir_connect(const char *name, int *ret_fd, struct err *err)
{
	_cleanup_(fd_close) int dir_fd = -1;
	_cleanup_(fd_close) int fd = -1;
	char base[PATH_MAX], path[PATH_MAX + MACHINE_MAX_NAME + 2];
	struct sockaddr_un address;
	socklen_t len;
	int code = machine_name_check(name, err) ?: rundir_base_path(base, err);

	if (code)
		return err_prefix(err, code, "%.60s", name);
	snprintf(path, sizeof(path), "%s/%s", base, name);
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	len = rundir_socket_address(path, dir_fd, &address);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "%s: socket", name);
	if (dir_fd >= 0 && connect(fd, (struct sockaddr *)&address, len) == 0) {
		*ret_fd = take_fd(&fd);
		return 0;
	}
	if (errno == EACCES || errno == EPERM)
		return err_sys(err, -errno, "%s: %s", name, path);
	return err_set(err, -ENOENT, "%s: no machine of this name runs; mvmm ps lists those that do", name);
}

int rundir_each(int (*fn)(void *opaque, const char *name, pid_t pid), void *opaque, struct err *err)
{
	char path[PATH_MAX];
	struct dirent *entry;
	int base_fd, code = rundir_base_path(path, err);
	pid_t pid = 0;
	DIR *dir;

	if (code)
		return code;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	code = rundir_open_base(path, false, &base_fd, err);
	if (code)
		return code;
	dir = fdopendir(base_fd);
	if (!dir) {
		close(base_fd);
		return err_sys(err, -ENOMEM, "%s", path);
	}
	while (!code && (entry = readdir(dir)))
		if (!machine_name_check(entry->d_name, NULL) && rundir_is_live(base_fd, entry->d_name, &pid))
			code = fn(opaque, entry->d_name, pid);
	closedir(dir);
	return code;
}
