/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See snapshot_open.h. The folder is opened once, and its files through that descriptor, so that they are all of one
 * snapshot, whatever is renamed meanwhile.
 */
#include "vmm/snapshot/snapshot_open.h"

#include "core/beneath.h"
#include "core/errand.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define LOCK_TRIES 20 /* a millisecond apart: --replace locks for a moment, to see whether it may */

/* ---- permissions ---- */

static int snapshot_open_check_writers(const struct stat *st, bool sticky_is_fine, const char *what, struct err *err)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(err, -EPERM,
			       "%s belongs to user %u, who could change it under the machine; copy the snapshot, or restore it "
			       "with --memory-mode copy", what, st->st_uid);
	if ((st->st_mode & (S_IWGRP | S_IWOTH)) && !(sticky_is_fine && (st->st_mode & S_ISVTX)))
		return err_set(err, -EPERM,
			       "%s may be written by others than its owner, who could change it under the machine; run chmod "
			       "go-w, or restore it with --memory-mode copy", what);
	return 0;
}

/* ---- files ---- */

static int snapshot_open_file(const struct snapshot *snapshot, const char *path, const char *name, unsigned int flags,
			      const char *what, int *ret, struct stat *st, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	int code;

	if (snapshot->folder)
		fd = errand_openat(snapshot->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	else
		fd = errand_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0 && errno == ENOENT && snapshot->folder)
		return err_set(err, -ENOENT, "not a snapshot: no file \"%s\" in it; name the folder that mvmm snapshot made",
			       name);
	if (fd < 0 && errno == ELOOP && snapshot->folder)
		return err_set(err, -EBADMSG, "%s is a symbolic link; put the file itself into the folder", what);
	if (fd < 0 || fstat(fd, st) < 0)
		return err_sys(err, -errno, "%s", what);
	if (!S_ISREG(st->st_mode))
		return err_set(err, -EBADMSG, "%s is not a plain file", what);
	code = flags & SNAPSHOT_ANY_OWNER ? 0 : snapshot_open_check_writers(st, false, what, err);
	if (!code)
		*ret = take_fd(&fd);
	return code;
}

/* Reads all of the file, whose size was len. */
static int snapshot_open_read(int fd, void *to, size_t len, const char *what, struct err *err)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = pread(fd, (char *)to + at, MIN(len - at, GIB(1)), (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "%s", what);
		if (n == 0)
			return err_set(err, -EBADMSG, "%s is cut off", what);
		at += (size_t)n;
	}
	return 0;
}

static int snapshot_open_state(struct snapshot *snapshot, const char *path, unsigned int flags, struct err *err)
{
	uint8_t header[SNAPSHOT_HEADER_SIZE];
	struct stat st;
	int code = snapshot_open_file(snapshot, path, "state", flags, "state", &snapshot->state_fd, &st, err);

	if (code)
		return code;
	/* Before anything of its size is allocated. */
	if ((uint64_t)st.st_size > SNAPSHOT_MAX_STATE || (uint64_t)st.st_size < sizeof(header))
		return err_set(err, -EBADMSG, "state: %" PRIu64 " bytes: not the state of a snapshot", (uint64_t)st.st_size);
	code = snapshot_open_read(snapshot->state_fd, header, sizeof(header), "state", err);
	if (code)
		return code;
	code = snapshot_state_check_header(header, (uint64_t)st.st_size, err);
	if (code)
		return err_prefix(err, code, "state");
	snapshot->bytes_len = (size_t)st.st_size;
	snapshot->bytes = malloc(snapshot->bytes_len);
	if (!snapshot->bytes)
		return err_sys(err, -ENOMEM, "state");
	code = snapshot_open_read(snapshot->state_fd, snapshot->bytes, snapshot->bytes_len, "state", err);
	if (code)
		return code;
	code = snapshot_state_parse(snapshot->bytes, snapshot->bytes_len, &snapshot->state, err);
	return code ? err_prefix(err, code, "state") : 0;
}

static int snapshot_open_memory(struct snapshot *snapshot, const char *path, unsigned int flags, struct err *err)
{
	struct stat st;
	int code = snapshot_open_file(snapshot, path, "memory", flags, "memory", &snapshot->memory_fd, &st, err);

	if (code)
		return code;
	if ((uint64_t)st.st_size != snapshot->state->memory_bytes)
		return err_set(err, -EBADMSG,
			       "memory has %" PRIu64 " bytes, the snapshot's is %" PRIu64 "; it is another's or was cut off",
			       (uint64_t)st.st_size, snapshot->state->memory_bytes);
	return 0;
}

/* machine.json is for people and tools; a restore uses the same bytes out of the state. */
static int snapshot_open_check_description(const struct snapshot *snapshot, unsigned int flags, struct err *err)
{
	const struct snapshot_bytes *description = &snapshot->state->description;
	_cleanup_(free_ptr) char *text = NULL;
	_cleanup_(fd_close) int fd = -1;
	struct stat st;
	int code = snapshot_open_file(snapshot, NULL, "machine.json", flags, "machine.json", &fd, &st, err);

	if (code)
		return code;
	text = malloc(description->len);
	if (!text)
		return err_sys(err, -ENOMEM, "machine.json");
	if ((uint64_t)st.st_size == description->len)
		code = snapshot_open_read(fd, text, description->len, "machine.json", err);
	if (code)
		return code;
	if ((uint64_t)st.st_size != description->len || memcmp(text, description->data, description->len) != 0)
		return err_set(err, -EBADMSG, "machine.json is not what the state says; take it from a copy of the snapshot");
	return 0;
}

static int snapshot_open_check_kind(const struct snapshot *snapshot, unsigned int flags, struct err *err)
{
	char parent[SNAPSHOT_ID_TEXT];

	if (flags & SNAPSHOT_ANY_KIND || !snapshot_state_is_diff(snapshot->state))
		return 0;
	snapshot_id_text(snapshot->state->parent, parent);
	return err_set(err, -EINVAL,
		       "a diff, which has only what changed since the snapshot %s; write mvmm snapshot merge BASE %.100s --to "
		       "DIR, and restore that",
		       parent, snapshot->path);
}

/* ---- the folder ---- */

/* The folder of path, which is a file's. */
static int snapshot_open_parent(const char *path)
{
	const char *name;
	int fd = beneath_open_folder(NULL, path, &name);

	return fd;
}

static int snapshot_open_folder(struct snapshot *snapshot, unsigned int flags, struct err *err)
{
	struct stat st;

	snapshot->dir_fd = snapshot->folder ? errand_open(snapshot->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) :
					      snapshot_open_parent(snapshot->path);
	if (snapshot->dir_fd < 0 && snapshot->folder)
		snapshot->dir_fd = -errno;
	if (snapshot->dir_fd == -ENOTDIR)
		return err_set(err, -ENOTDIR, "not a folder; name the folder of a snapshot");
	if (snapshot->dir_fd == -ENOENT)
		return err_set(err, -ENOENT, "does not exist; name the folder of a snapshot");
	if (snapshot->dir_fd < 0)
		return err_sys(err, snapshot->dir_fd, "open");
	if (fstat(snapshot->dir_fd, &st) < 0)
		return err_sys(err, -errno, "the folder");
	return flags & SNAPSHOT_ANY_OWNER ? 0 :
					    snapshot_open_check_writers(&st, !snapshot->folder, "the folder", err);
}

/* What is wrong with a folder that is just being written is not damage. */
static bool snapshot_open_is_written(const struct snapshot *snapshot)
{
	return snapshot->folder && snapshot->dir_fd >= 0 && flock(snapshot->dir_fd, LOCK_SH | LOCK_NB) < 0 &&
	       errno == EWOULDBLOCK;
}

static int snapshot_open_all(struct snapshot *snapshot, const char *memory, unsigned int flags, struct err *err)
{
	int code = snapshot_open_folder(snapshot, flags, err) ?: snapshot_open_state(snapshot, snapshot->path, flags, err);

	if (!code && !(flags & SNAPSHOT_NO_MEMORY))
		code = snapshot_open_memory(snapshot, memory, flags, err);
	if (!code && snapshot->folder)
		code = snapshot_open_check_description(snapshot, flags, err);
	if (code && snapshot_open_is_written(snapshot))
		return err_set(err, -EBUSY, "a snapshot is being written to it; wait until that has ended");
	return code ?: snapshot_open_check_kind(snapshot, flags, err);
}

int snapshot_open_as(const char *path, const char *memory, unsigned int flags, struct snapshot **ret, struct err *err)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
	int code;

	if (!snapshot)
		return err_sys(err, -ENOMEM, "%.200s", path);
	snapshot->dir_fd = snapshot->state_fd = snapshot->memory_fd = -1;
	snapshot->folder = !memory && !(flags & SNAPSHOT_NO_MEMORY);
	snapshot->path = strdup(path);
	code = snapshot->path ? snapshot_open_all(snapshot, memory, flags, err) : err_sys(err, -ENOMEM, "open");
	if (code) {
		snapshot_close(snapshot);
		return err_prefix(err, code, "%.200s", path);
	}
	*ret = snapshot;
	return 0;
}

int snapshot_open(const char *folder, struct snapshot **ret, struct err *err)
{
	return snapshot_open_as(folder, NULL, 0, ret, err);
}

int snapshot_open_files(const char *state, const char *memory, struct snapshot **ret, struct err *err)
{
	return snapshot_open_as(state, memory, 0, ret, err);
}

void snapshot_close(struct snapshot *snapshot)
{
	if (!snapshot)
		return;
	fd_close(&snapshot->memory_fd);
	fd_close(&snapshot->state_fd);
	fd_close(&snapshot->dir_fd);
	free(snapshot->state);
	free(snapshot->bytes);
	free(snapshot->path);
	free(snapshot);
}

int snapshot_lock(struct snapshot *snapshot, bool exclusive, struct err *err)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	int tries = 0;

	while (snapshot->memory_fd >= 0 && flock(snapshot->memory_fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(err, -errno, "%.200s: lock the memory file", snapshot->path);
		if (++tries == LOCK_TRIES || (exclusive && errno == EWOULDBLOCK))
			return err_set(err, -EBUSY,
				       exclusive ? "%.200s: its memory is mapped by a machine or read; end that first" :
						   "%.200s: is being replaced by another snapshot; try again",
				       snapshot->path);
		nanosleep(&moment, NULL);
	}
	return 0;
}

int snapshot_open_part(const struct snapshot *snapshot, const char *name, int *fd, struct err *err)
{
	_cleanup_(fd_close) int file = -1;
	struct stat st;

	if (snapshot->folder)
		file = errand_openat(snapshot->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (!snapshot->folder || (file < 0 && errno == ENOENT)) {
		*fd = -1;
		return 0;
	}
	if (file < 0 || fstat(file, &st) < 0)
		return err_sys(err, -errno, "%.200s: %.60s", snapshot->path, name);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EBADMSG, "%.200s: %.60s is not a plain file", snapshot->path, name);
	*fd = take_fd(&file);
	return 0;
}
