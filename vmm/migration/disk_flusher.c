/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See disk_flusher.h. fdatasync(2) on storage that hangs cannot be interrupted. Therefore the thread is detached and
 * has a reference to the flusher and to its own descriptors: whoever leaves last frees them.
 */
#include "vmm/migration/disk_flusher.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "core/errand.h"
#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/migration/wire.h"

struct disk_flusher {
	struct disk_shared disks[WIRE_MAX_DISKS];
	size_t count;
	int idle_fd; /* eventfd, readable while no flush is wanted or in progress, and after a failure */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	unsigned int users; /* the owner and the thread */
	bool wanted, over;
	uint64_t began; /* of the flush in progress, or 0 */
	uint64_t last;  /* ns that the last one took */
	int code;
	struct err err;
};

static void disk_flusher_free(struct disk_flusher *flusher)
{
	for (size_t i = 0; i < flusher->count; i++)
		fd_close(&flusher->disks[i].fd);
	fd_close(&flusher->idle_fd);
	pthread_cond_destroy(&flusher->changed);
	pthread_mutex_destroy(&flusher->lock);
	free(flusher);
}

static void disk_flusher_leave(struct disk_flusher *flusher)
{
	bool last;

	pthread_mutex_lock(&flusher->lock);
	last = --flusher->users == 0;
	pthread_mutex_unlock(&flusher->lock);
	if (last)
		disk_flusher_free(flusher);
}

/* ---- the thread ---- */

static int disk_flusher_flush(const struct disk_flusher *flusher, struct err *err)
{
	for (size_t i = 0; i < flusher->count; i++)
		if (flusher->disks[i].flush(flusher->disks[i].fd) < 0)
			return err_sys(err, -errno, "disk %s: flush", flusher->disks[i].id);
	return 0;
}

/* The lock is held, except while storage works. */
static void disk_flusher_turn(struct disk_flusher *flusher)
{
	struct err err;
	int code;

	flusher->wanted = false;
	flusher->began = monotonic_ns();
	pthread_mutex_unlock(&flusher->lock);
	code = disk_flusher_flush(flusher, &err);
	pthread_mutex_lock(&flusher->lock);
	flusher->last = monotonic_ns() - flusher->began;
	flusher->began = 0;
	if (code && !flusher->code) {
		flusher->code = code;
		flusher->err = err;
	}
	if (code || !flusher->wanted)
		eventfd_write(flusher->idle_fd, 1);
}

static void *disk_flusher_main(void *opaque)
{
	struct disk_flusher *flusher = opaque;

	pthread_mutex_lock(&flusher->lock);
	while (!flusher->over && !flusher->code) {
		if (flusher->wanted)
			disk_flusher_turn(flusher);
		else
			pthread_cond_wait(&flusher->changed, &flusher->lock);
	}
	pthread_mutex_unlock(&flusher->lock);
	disk_flusher_leave(flusher);
	return NULL;
}

/* ---- the outside ---- */

/* A descriptor with an error state of its own; if there is none, one that shares it. */
static int disk_flusher_open(int fd)
{
	char self[32];
	int own;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	own = errand_open(self, O_RDONLY | O_CLOEXEC, 0);
	return own < 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : own;
}

static int disk_flusher_add(struct disk_flusher *flusher, const struct disk_shared *disk, struct err *err)
{
	int fd = disk_flusher_open(disk->fd);

	if (fd < 0)
		return err_sys(err, -errno, "disk %s", disk->id);
	flusher->disks[flusher->count] = *disk;
	flusher->disks[flusher->count++].fd = fd;
	return 0;
}

static int disk_flusher_start(struct disk_flusher *flusher, struct err *err)
{
	pthread_t thread;
	int code;

	flusher->users = 2;
	code = thread_start(&thread, THREAD_MIGRATION, disk_flusher_main, flusher, "flush-disks");
	if (code) {
		flusher->users = 1;
		return err_sys(err, code, "thread flush-disks");
	}
	pthread_detach(thread);
	return 0;
}

int disk_flusher_create(const struct disk_shared *disks, size_t count, struct disk_flusher **ret, struct err *err)
{
	struct disk_flusher *flusher = calloc(1, sizeof(*flusher));
	int code = 0;

	if (!flusher)
		return err_sys(err, -ENOMEM, "flushing disks");
	flusher->users = 1;
	pthread_mutex_init(&flusher->lock, NULL);
	pthread_cond_init(&flusher->changed, NULL);
	flusher->idle_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (flusher->idle_fd < 0)
		code = err_sys(err, -errno, "flushing disks");
	for (size_t i = 0; !code && i < MIN(count, WIRE_MAX_DISKS); i++)
		code = disk_flusher_add(flusher, &disks[i], err);
	code = code ?: disk_flusher_start(flusher, err);
	if (code)
		disk_flusher_leave(flusher);
	else
		*ret = flusher;
	return code;
}

void disk_flusher_destroy(struct disk_flusher *flusher)
{
	if (!flusher)
		return;
	pthread_mutex_lock(&flusher->lock);
	flusher->over = true;
	pthread_cond_signal(&flusher->changed);
	pthread_mutex_unlock(&flusher->lock);
	disk_flusher_leave(flusher);
}

void disk_flusher_begin(struct disk_flusher *flusher)
{
	eventfd_t count;

	if (!flusher)
		return;
	pthread_mutex_lock(&flusher->lock);
	if (!flusher->code) {
		flusher->wanted = true;
		eventfd_read(flusher->idle_fd, &count);
		pthread_cond_signal(&flusher->changed);
	}
	pthread_mutex_unlock(&flusher->lock);
}

bool disk_flusher_idle(struct disk_flusher *flusher)
{
	struct pollfd idle = {.fd = flusher ? flusher->idle_fd : -1, .events = POLLIN};

	return !flusher || poll(&idle, 1, 0) == 1;
}

int disk_flusher_check(struct disk_flusher *flusher, struct err *err)
{
	int code = 0;

	if (!flusher)
		return 0;
	pthread_mutex_lock(&flusher->lock);
	if (flusher->code)
		code = err_set(err, flusher->code, "%s", flusher->err.text);
	pthread_mutex_unlock(&flusher->lock);
	return code;
}

int disk_flusher_wait(struct disk_flusher *flusher, int cancel_fd, int64_t deadline, struct err *err)
{
	struct pollfd fds[] = {{.fd = flusher ? flusher->idle_fd : -1, .events = POLLIN},
			       {.fd = cancel_fd, .events = POLLIN}};

	while (!disk_flusher_idle(flusher)) {
		int left = monotonic_left(deadline);

		if (!left)
			return err_set(err, -ETIMEDOUT, "storage has not completed a flush of the disks in time");
		poll(fds, ARRAY_SIZE(fds), left);
		if (fds[1].revents)
			return err_set(err, -ECANCELED, "cancelled");
	}
	return disk_flusher_check(flusher, err);
}

uint64_t disk_flusher_time(struct disk_flusher *flusher)
{
	uint64_t time;

	if (!flusher)
		return 0;
	pthread_mutex_lock(&flusher->lock);
	time = flusher->last;
	if (flusher->wanted)
		time += flusher->last;
	if (flusher->began) /* its rest is not known: as much again */
		time += MAX(monotonic_ns() - flusher->began, flusher->last);
	pthread_mutex_unlock(&flusher->lock);
	return time;
}
