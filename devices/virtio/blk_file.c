/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image of a virtio disk, a regular file or a block device: open, size, alignment, lock. See blk_internal.h.
 *
 * The lock is an OFD lock on the whole file (fcntl(2)), for writing, or shared if read-only: no two machines write one
 * disk, nor do other programs that lock images with fcntl(2). It is on the descriptor that io_uring writes to: when
 * this process is killed, the kernel keeps the lock until the last write has ended.
 */
#include "core/beneath.h"
#include "core/errand.h"
#include "core/thread.h"
#include "devices/virtio/blk_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define LOCK_TRIES 50
#define LOCK_WAIT_MS 20

/* Whether descriptor name of process pid is this file and has a lock on it. */
static bool blk_file_holds_lock(const char *pid, const char *name, const struct stat *file)
{
	char path[300], line[256];
	struct stat st;
	bool found = false;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, name);
	if (stat(path, &st) || st.st_dev != file->st_dev || st.st_ino != file->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, name);
	info = errand_fopen(path);
	while (info && !found && fgets(line, sizeof(line), info))
		found = strncmp(line, "lock:", 5) == 0;
	if (info)
		fclose(info);
	return found;
}

/* Names the process that has the lock: "another mvmm (pid 12)". False: /proc does not show it; "another program". */
static bool blk_file_look_for_holder(const struct stat *file, char *text, size_t size)
{
	struct dirent *process, *entry;
	DIR *proc = opendir("/proc"), *fds;
	char path[64], comm[32];
	bool found = false;
	FILE *f;

	snprintf(text, size, "another program");
	while (proc && !found && (process = readdir(proc))) {
		if (process->d_name[0] < '1' || process->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/fd", process->d_name);
		fds = opendir(path);
		while (fds && !found && (entry = readdir(fds)))
			found = entry->d_name[0] != '.' && blk_file_holds_lock(process->d_name, entry->d_name, file);
		if (fds)
			closedir(fds);
		if (!found)
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", process->d_name);
		f = errand_fopen(path);
		if (!f || !fgets(comm, sizeof(comm), f))
			snprintf(comm, sizeof(comm), "a program");
		if (f)
			fclose(f);
		comm[strcspn(comm, "\n")] = 0;
		snprintf(text, size, "%s%s (pid %.20s)", strcmp(comm, "mvmm") == 0 ? "another " : "", comm,
			 process->d_name);
	}
	if (proc)
		closedir(proc);
	return found;
}

struct search {
	const struct stat *file;
	char *text;
	size_t size;
};

static int blk_file_do_look(void *argument)
{
	const struct search *search = argument;

	return blk_file_look_for_holder(search->file, search->text, search->size);
}

static bool blk_file_describe_holder(const struct stat *file, char *text, size_t size)
{
	return thread_call(blk_file_do_look, &(struct search){file, text, size}) > 0;
}

/* The page cache may be stale: another host may have written to the device. */
static void blk_file_forget_cache(const struct blk_file *file, const struct stat *st)
{
	if (S_ISBLK(st->st_mode))
		posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* A lock without a visible process may belong to one that has ended and whose last writes are still in flight: wait. */
int blk_file_lock(const struct blk_file *file, struct err *err)
{
	struct flock lock = {.l_type = file->readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	unsigned int tries = LOCK_TRIES;
	char holder[128];
	struct stat st;

	if (fstat(file->fd, &st))
		return err_sys(err, -errno, "cannot look at it");
	while (!file->lockless && fcntl(file->fd, F_OFD_SETLK, &lock)) {
		if (errno != EAGAIN && errno != EACCES)
			return err_set(err, -errno, "cannot be locked (%s); lock=off uses it without a lock, if you take "
				       "care that nothing else writes it", strerrordesc_np(errno));
		if (blk_file_describe_holder(&st, holder, sizeof(holder)) || !--tries)
			return err_set(err, -EBUSY,
				       "in use by %s; stop that first, or give each machine a disk of its own", holder);
		poll(NULL, 0, LOCK_WAIT_MS);
	}
	blk_file_forget_cache(file, &st);
	return 0;
}

void blk_file_unlock(const struct blk_file *file)
{
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	if (file->fd >= 0)
		fcntl(file->fd, F_OFD_SETLK, &lock);
}

static int blk_file_open_failed(int code, const struct blk_file *file, const struct virtio_blk_options *options,
				struct err *err)
{
	const char *path = options->path;

	switch (code) {
	case -EXDEV:
	case -ELOOP:
		if (options->below)
			return err_set(err, code, "a link or .. in it leads out of %s", options->below);
		return err_sys(err, code, "cannot open it");
	case -ENOENT:
		return err_set(err, code, "no such file; 'truncate -s 10G %s' makes an empty disk", path);
	case -EACCES:
	case -EPERM:
		if (!file->readonly)
			return err_set(err, code,
				       "no permission to write it; add readonly=on, or change its owner or mode");
		return err_set(err, code, "no permission to read it; change its owner or mode");
	case -EROFS:
		return err_set(err, code, "it is on a read-only file system; add readonly=on");
	default:
		if (code == -EINVAL && file->direct)
			return err_set(err, code, "its file system does not support direct I/O; omit direct=on");
		return err_sys(err, code, "cannot open it");
	}
}

/* The alignment for O_DIRECT: from statx if the kernel supports that, else by trying. */
static void blk_file_find_alignment(struct blk_file *file)
{
	_cleanup_(free_ptr) void *buf = NULL;
	uint32_t align;
	struct statx st;

	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && st.stx_mask & STATX_DIOALIGN &&
	    is_power_of_two(st.stx_dio_mem_align) && is_power_of_two(st.stx_dio_offset_align)) {
		file->memory_align = st.stx_dio_mem_align;
		file->offset_align = st.stx_dio_offset_align;
		return;
	}
	if (posix_memalign(&buf, 4096, 4096)) {
		buf = NULL;
		return;
	}
	for (align = BLK_SECTOR; align < 4096; align *= 2)
		if (pread(file->fd, (char *)buf + align % 4096, align, 0) >= 0)
			break;
	file->memory_align = file->offset_align = align;
}

/* A partition table counts in sectors: one that was made for others shows no partitions. */
static void blk_file_check_partitions(const struct blk_file *file, const struct log *log, const char *path)
{
	static const char signature[] = "EFI PART";
	unsigned int other = file->block_size == BLK_SECTOR ? 4096 : BLK_SECTOR;
	_cleanup_(free_ptr) char *start = NULL;

	if (file->block_size > 4096 || posix_memalign((void **)&start, 4096, 8192)) {
		start = NULL;
		return;
	}
	if (pread(file->buffered_fd, start, 8192, 0) == 8192 &&
	    memcmp(start + file->block_size, signature, sizeof(signature) - 1) != 0 &&
	    memcmp(start + other, signature, sizeof(signature) - 1) == 0)
		log_warn(log, "--disk %s: its partition table was made for sectors of %u bytes, and the guest sees sectors "
			 "of %u; add sector-size=%u", path, other, file->block_size, other);
}

static int blk_file_measure(struct blk_file *file, const struct stat *st, const struct log *log,
			    const struct virtio_blk_options *options, struct err *err)
{
	const char *path = options->path;
	uint64_t size = (uint64_t)st->st_size;
	unsigned int physical = 0;
	int logical = 0;

	file->block_size = BLK_SECTOR;
	file->physical_size = (uint32_t)MIN(MAX(st->st_blksize, (blksize_t)BLK_SECTOR), (blksize_t)4096);
	if (S_ISBLK(st->st_mode)) {
		if (ioctl(file->fd, BLKGETSIZE64, &size))
			return err_sys(err, -errno, "cannot read its size");
		if (ioctl(file->fd, BLKSSZGET, &logical) == 0 && is_power_of_two((uint64_t)logical))
			file->block_size = MIN(MAX((uint32_t)logical, BLK_SECTOR), 65536u);
		if (ioctl(file->fd, BLKPBSZGET, &physical) == 0 && is_power_of_two(physical))
			file->physical_size = physical;
	}
	if (options->sector_size)
		file->block_size = options->sector_size;
	if (!is_power_of_two(file->physical_size) || file->physical_size < file->block_size)
		file->physical_size = file->block_size;
	file->sectors = blk_file_sectors(file, size);
	if (!file->sectors)
		log_warn(log, "--disk %s: it is empty, and the guest finds no room on it; truncate -s 10G %s and mvmm disk "
			 "resize give it some", path, path);
	if (size % file->block_size)
		log_warn(log, "--disk %s: the guest does not see its last %u bytes, which are not a whole sector", path,
			 (unsigned int)(size % file->block_size));
	if (!options->sector_size && !options->unlocked)
		blk_file_check_partitions(file, log, path);
	return 0;
}

static int blk_file_check_kind(const struct stat *st, struct err *err)
{
	if (S_ISDIR(st->st_mode))
		return err_set(err, -EISDIR, "it is a directory; name an image file or a block device");
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return err_set(err, -EINVAL, "it is neither a file nor a block device; name one of those");
	return 0;
}

static int blk_file_open_path(const struct virtio_blk_options *options, struct blk_file *file, struct stat *st,
			      struct err *err)
{
	int flags = (file->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC, rc;
	const char *path = options->path;
	/* Looked at before it is opened: opening a pipe or a terminal can block or have side effects. */
	_cleanup_(fd_close) int found = beneath_open(options->file ? NULL : options->below, options->file ?: path, O_PATH);
	char self[32];

	if (found < 0 || fstat(found, st))
		return blk_file_open_failed(found < 0 ? found : -errno, file, options, err);
	rc = blk_file_check_kind(st, err);
	if (rc)
		return rc;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", found);
	file->fd = errand_open(self, flags | (file->direct ? O_DIRECT : 0), 0);
	if (file->fd < 0)
		return blk_file_open_failed(-errno, file, options, err);
	file->buffered_fd = file->direct ? errand_open(self, flags, 0) : file->fd;
	return file->buffered_fd < 0 ? err_sys(err, -errno, "cannot open it a second time, by %s", self) : 0;
}

/* Whether the descriptor was opened for what the disk does with it. */
static int blk_file_check_passed(const struct blk_file *file, int fd, bool direct, struct err *err)
{
	int flags = fcntl(fd, F_GETFL), mode = flags & O_ACCMODE;

	if (flags < 0 || flags & O_PATH || mode == O_WRONLY)
		return err_set(err, -EBADF, "its descriptor cannot be read");
	if (mode != O_RDWR && !file->readonly)
		return err_set(err, -EBADF, "its descriptor cannot be written; open it for writing, or add readonly=on");
	if (flags & O_APPEND)
		return err_set(err, -EBADF, "its descriptor only appends; open it without O_APPEND");
	if (!(flags & O_DIRECT) == direct)
		return err_set(err, -EBADF, direct ? "direct=on needs a second descriptor, opened with O_DIRECT" :
				       "its descriptor was opened with O_DIRECT; open it without");
	return 0;
}

/*
 * A copy of a descriptor. Who has opened the file may not have wanted to wait for it; on a file system that knows no such
 * requests, io_uring would then fail them all (EAGAIN) instead of waiting for storage.
 */
static int blk_file_copy(int passed)
{
	int fd = fcntl(passed, F_DUPFD_CLOEXEC, 3), flags = fd < 0 ? 0 : fcntl(fd, F_GETFL);

	if (flags > 0 && flags & O_NONBLOCK)
		fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	return fd;
}

static int blk_file_adopt_direct(const struct virtio_blk_passed *passed, struct blk_file *file, const struct stat *st,
				 struct err *err)
{
	struct stat direct;
	int rc = blk_file_check_passed(file, passed->direct_fd, true, err);

	if (rc)
		return rc;
	if (fstat(passed->direct_fd, &direct) || direct.st_dev != st->st_dev || direct.st_ino != st->st_ino)
		return err_set(err, -EINVAL, "its descriptors are of different files");
	file->fd = blk_file_copy(passed->direct_fd);
	return file->fd < 0 ? err_sys(err, -errno, "its descriptor") : 0;
}

static int blk_file_adopt(const struct virtio_blk_passed *passed, struct blk_file *file, struct stat *st, struct err *err)
{
	int rc;

	if (fstat(passed->fd, st))
		return err_sys(err, -errno, "its descriptor");
	rc = blk_file_check_kind(st, err) ?: blk_file_check_passed(file, passed->fd, false, err);
	if (rc)
		return rc;
	file->buffered_fd = blk_file_copy(passed->fd);
	if (file->buffered_fd < 0)
		return err_sys(err, -errno, "its descriptor");
	if (file->direct)
		return blk_file_adopt_direct(passed, file, st, err);
	file->fd = file->buffered_fd;
	return 0;
}

static int blk_file_open_and_check(const struct virtio_blk_options *options, const struct log *log,
				   struct blk_file *file, struct err *err)
{
	struct stat st;
	int rc = options->passed ? blk_file_adopt(options->passed, file, &st, err) :
				   blk_file_open_path(options, file, &st, err);

	if (rc == 0 && !options->unlocked)
		rc = blk_file_lock(file, err);
	if (rc)
		return rc;
	file->memory_align = file->offset_align = 1;
	if (file->direct)
		blk_file_find_alignment(file);
	return blk_file_measure(file, &st, log, options, err);
}

int blk_file_open(const struct virtio_blk_options *options, const struct log *log, struct blk_file *file,
		  struct err *err)
{
	struct blk_file opened = {.fd = -1, .buffered_fd = -1, .readonly = options->readonly,
				  .direct = options->direct, .lockless = options->lockless};
	int rc = blk_file_open_and_check(options, log, &opened, err);

	if (rc) {
		blk_file_close(&opened);
		return err_prefix(err, rc, "--disk %s", options->path);
	}
	*file = opened;
	return 0;
}

void blk_file_close(struct blk_file *file)
{
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	/* A ring that is being destroyed may still keep the file open. */
	if (file->fd >= 0)
		fcntl(file->fd, F_OFD_SETLK, &lock);
	if (file->buffered_fd == file->fd)
		file->buffered_fd = -1;
	fd_close(&file->buffered_fd);
	fd_close(&file->fd);
}
