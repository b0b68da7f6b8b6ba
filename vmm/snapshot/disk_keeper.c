/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_keeper.h. The thread is detached; whoever leaves last, it or the owner, frees the rest. */
#include "vmm/snapshot/disk_keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/snapshot/disk_identity.h"
#include "vmm/snapshot/file_copy.h"

#define LOOK_MS 50 /* how often it is looked whether a copy gets on */

struct disk_keeper {
	struct {
		char id[sizeof(((struct disk_copy *)NULL)->id)];
		uint64_t size;
		int from, to;
	} disks[WIRE_MAX_DISKS];
	size_t count;
	struct disk_copier *copier; /* or NULL */
	int done_fd;                /* eventfd, readable when the thread is done */
	unsigned int users;         /* atomic: the owner and the thread */
	unsigned int steps;         /* atomic: disks that are done */
	bool left;                  /* atomic: nobody wants it any more */
	/* of the thread, until done_fd is readable */
	struct snapshot_disk identities[WIRE_MAX_DISKS];
	int code;
	struct err err;
};

static void disk_keeper_leave(struct disk_keeper *keeper)
{
	if (__atomic_sub_fetch(&keeper->users, 1, __ATOMIC_ACQ_REL))
		return;
	for (size_t i = 0; i < keeper->count; i++) {
		fd_close(&keeper->disks[i].from);
		fd_close(&keeper->disks[i].to);
	}
	fd_close(&keeper->done_fd);
	disk_copier_destroy(keeper->copier);
	free(keeper);
}

/* ---- the thread ---- */

static int disk_keeper_keep(struct disk_keeper *keeper, size_t i, struct err *err)
{
	int from = keeper->disks[i].from, to = keeper->disks[i].to, code;

	disk_identity_settle(from);
	code = disk_identity_read(keeper->disks[i].id, from, keeper->disks[i].size, &keeper->identities[i], err);
	if (code || to < 0)
		return code;
	code = file_copy_reflink(from, to);
	return code ? err_sys(err, code, "%s: reflink", keeper->disks[i].id) : 0;
}

static void *disk_keeper_main(void *opaque)
{
	struct disk_keeper *keeper = opaque;
	int code = keeper->copier ? disk_copier_copy_rest(keeper->copier, &keeper->err) : 0;

	for (size_t i = 0; i < keeper->count && !code && !__atomic_load_n(&keeper->left, __ATOMIC_ACQUIRE); i++) {
		code = disk_keeper_keep(keeper, i, &keeper->err);
		__atomic_add_fetch(&keeper->steps, 1, __ATOMIC_RELEASE);
	}
	keeper->code = code;
	eventfd_write(keeper->done_fd, 1);
	disk_keeper_leave(keeper);
	return NULL;
}

/* ---- the owner ---- */

static int disk_keeper_add(struct disk_keeper *keeper, const struct disk_copy *disk, int file, struct err *err)
{
	size_t i = keeper->count++;

	memcpy(keeper->disks[i].id, disk->id, sizeof(disk->id));
	keeper->disks[i].size = disk->size;
	keeper->disks[i].to = -1;
	keeper->disks[i].from = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
	if (keeper->disks[i].from >= 0 && file >= 0)
		keeper->disks[i].to = fcntl(file, F_DUPFD_CLOEXEC, 3);
	if (keeper->disks[i].from < 0 || (file >= 0 && keeper->disks[i].to < 0))
		return err_sys(err, -errno, "%s", disk->id);
	return 0;
}

static int disk_keeper_start(struct disk_keeper *keeper, struct err *err)
{
	pthread_t thread;
	int code;

	keeper->users = 2;
	code = thread_start(&thread, THREAD_SNAPSHOT, disk_keeper_main, keeper, "keep-disks");
	if (code) {
		keeper->users = 1;
		return err_sys(err, code, "thread keep-disks");
	}
	pthread_detach(thread);
	return 0;
}

int disk_keeper_create(const struct disk_keeper_options *options, struct disk_copier **copier, struct disk_keeper **ret,
		       struct err *err)
{
	struct disk_keeper *keeper = calloc(1, sizeof(*keeper));
	int code;

	if (!keeper)
		return err_sys(err, -ENOMEM, "disks");
	keeper->users = 1;
	keeper->copier = take_ptr(*copier);
	if (keeper->copier)
		disk_copier_hand_over(keeper->copier);
	keeper->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	code = keeper->done_fd < 0 ? err_sys(err, -errno, "disks") : 0;
	for (size_t i = 0; i < options->count && !code; i++)
		code = disk_keeper_add(keeper, &options->disks[i], options->files ? options->files[i] : -1, err);
	code = code ?: disk_keeper_start(keeper, err);
	if (code)
		disk_keeper_leave(keeper);
	else
		*ret = keeper;
	return code;
}

void disk_keeper_destroy(struct disk_keeper *keeper)
{
	if (!keeper)
		return;
	__atomic_store_n(&keeper->left, true, __ATOMIC_RELEASE);
	if (keeper->copier)
		disk_copier_give_up(keeper->copier);
	disk_keeper_leave(keeper);
}

/* Less when it gets on. */
static uint64_t disk_keeper_rest(const struct disk_keeper *keeper)
{
	uint64_t left = keeper->copier ? disk_copier_left(keeper->copier) : 0;

	return left + keeper->count - __atomic_load_n(&keeper->steps, __ATOMIC_ACQUIRE);
}

int disk_keeper_wait(struct disk_keeper *keeper, int cancel_fd, int ms, struct snapshot_disk identities[WIRE_MAX_DISKS],
		     struct err *err)
{
	struct pollfd fds[] = {{.fd = keeper->done_fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
	uint64_t rest = disk_keeper_rest(keeper), now;
	int64_t deadline = monotonic_ms() + ms;

	for (; !fds[0].revents; rest = now) {
		int left = monotonic_left(deadline);

		if (!left)
			return err_set(err, -ETIMEDOUT, "storage has not kept the disks in time");
		poll(fds, ARRAY_SIZE(fds), MIN(left, LOOK_MS));
		if (fds[1].revents)
			return err_set(err, -ECANCELED, "cancelled");
		now = disk_keeper_rest(keeper);
		if (now != rest)
			deadline = monotonic_ms() + ms;
	}
	if (keeper->code)
		return err_set(err, keeper->code, "%s", keeper->err.text);
	memcpy(identities, keeper->identities, keeper->count * sizeof(*identities));
	return 0;
}
