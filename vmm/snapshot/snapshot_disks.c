/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_disks.h. */
#include "vmm/snapshot/snapshot_disks.h"

#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "core/monotonic.h"
#include "vmm/snapshot/disk_copier.h"
#include "vmm/snapshot/disk_keeper.h"

#define TRIAL KIB(64) /* a multiple of each file system's block size */

struct snapshot_disk_set {
	struct snapshot_disks_options options;
	const struct snapshot_take_config *config;
	int files[WIRE_MAX_DISKS]; /* in the order of config->disks; not owned */
	struct disk_flusher *flusher;
	struct disk_copier *copier; /* NULL: they are not copied */
	bool tracked;
};

static bool snapshot_disks_are(const struct snapshot_disk_set *disks, enum snapshot_disks kind)
{
	return disks->config->disk_count && disks->config->request->disks == kind;
}

/* ---- files ---- */

static int snapshot_disks_find_files(struct snapshot_disk_set *disks, struct err *err)
{
	const struct snapshot_take_config *config = disks->config;

	for (size_t i = 0; i < config->disk_count; i++) {
		disks->files[i] = -1;
		for (size_t k = 0; k < config->files->disk_count; k++)
			if (strcmp(config->files->disks[k].id, config->disks[i].id) == 0)
				disks->files[i] = config->files->disks[k].fd;
		if (disks->files[i] < 0)
			return err_set(err, -EINVAL, "%s: there is no file for this disk", config->disks[i].id);
	}
	return 0;
}

/* A trial with its first blocks, so that a large disk is not flushed for nothing; the pause replaces it. */
static int snapshot_disks_try(const struct snapshot_disk_set *disks, size_t i, struct err *err)
{
	const struct disk_copy *disk = &disks->config->disks[i];
	struct file_clone_range range = {.src_fd = disk->fd, .src_length = TRIAL};
	struct stat st;

	if (fstat(disk->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= (off_t)TRIAL)
		range.src_length = 0; /* all of it */
	if (ioctl(disks->files[i], FICLONERANGE, &range) == 0)
		return 0;
	return err_set(err, -ENOTSUP, "%s: cannot be kept as a reflink beside the snapshot (%s); write the snapshot to the "
		       "disk's file system, if that has reflinks (XFS, Btrfs), or add --disks copy, or --disks none if "
		       "the disk will not be written any more", disk->id, strerrordesc_np(errno));
}

/* ---- before the pause ---- */

static int snapshot_disks_begin_flush(struct snapshot_disk_set *disks, struct err *err)
{
	const struct snapshot_take_config *config = disks->config;
	struct disk_shared shared[WIRE_MAX_DISKS];

	for (size_t i = 0; i < config->disk_count; i++) {
		shared[i] = (struct disk_shared){.fd = config->disks[i].fd, .flush = config->flush ?: fdatasync};
		memcpy(shared[i].id, config->disks[i].id, sizeof(shared[i].id));
	}
	return disk_flusher_create(shared, config->disk_count, &disks->flusher, err);
}

static int snapshot_disks_begin_copy(struct snapshot_disk_set *disks, struct err *err)
{
	const struct snapshot_take_config *config = disks->config;
	const struct disk_copier_options options = {
		.disks = config->disks, .fds = disks->files, .count = config->disk_count, .tick = disks->options.tick,
		.opaque = disks->options.opaque,
	};
	int code = disk_copier_create(&options, &disks->copier, err);

	code = code ?: config->ops->track_disks(config->machine, err);
	disks->tracked = !code;
	return code;
}

static int snapshot_disks_begin(struct snapshot_disk_set *disks, struct err *err)
{
	int code = 0;

	if (!disks->config->disk_count)
		return 0;
	if (!snapshot_disks_are(disks, SNAPSHOT_DISKS_NONE))
		code = snapshot_disks_find_files(disks, err);
	if (snapshot_disks_are(disks, SNAPSHOT_DISKS_REFLINK))
		for (size_t i = 0; i < disks->config->disk_count && !code; i++)
			code = snapshot_disks_try(disks, i, err);
	code = code ?: snapshot_disks_begin_flush(disks, err);
	if (!code && snapshot_disks_are(disks, SNAPSHOT_DISKS_COPY))
		code = snapshot_disks_begin_copy(disks, err);
	return code;
}

int snapshot_disks_create(const struct snapshot_disks_options *options, struct snapshot_disk_set **ret, struct err *err)
{
	struct snapshot_disk_set *disks = calloc(1, sizeof(*disks));
	int code;

	if (!disks)
		return err_sys(err, -ENOMEM, "disks");
	disks->options = *options;
	disks->config = options->config;
	code = snapshot_disks_begin(disks, err);
	if (code)
		snapshot_disks_destroy(disks);
	else
		*ret = disks;
	return code;
}

void snapshot_disks_destroy(struct snapshot_disk_set *disks)
{
	if (!disks)
		return;
	if (disks->tracked)
		disks->config->ops->untrack_disks(disks->config->machine);
	disk_copier_destroy(disks->copier);
	disk_flusher_destroy(disks->flusher);
	free(disks);
}

struct disk_flusher *snapshot_disks_flusher(const struct snapshot_disk_set *disks)
{
	return disks->flusher;
}

int snapshot_disks_flush(struct snapshot_disk_set *disks, int64_t deadline, struct err *err)
{
	int code;

	if (!disks->flusher)
		return 0;
	disk_flusher_begin(disks->flusher);
	code = disk_flusher_wait(disks->flusher, disks->options.cancel_fd, deadline, err);
	return code == -ECANCELED ? disks->options.tick(disks->options.opaque, err) ?: code : code;
}

int snapshot_disks_prepare(struct snapshot_disk_set *disks, struct err *err)
{
	return snapshot_disks_follow(disks, err) ?: snapshot_disks_flush(disks, -1, err);
}

int snapshot_disks_follow(struct snapshot_disk_set *disks, struct err *err)
{
	return disks->copier ? disk_copier_follow(disks->copier, err) : 0;
}

/* ---- in the pause ---- */

int snapshot_disks_keep(struct snapshot_disk_set *disks, int ms, struct snapshot_disk identities[WIRE_MAX_DISKS],
			size_t *count, struct err *err)
{
	const struct snapshot_take_config *config = disks->config;
	const struct disk_keeper_options options = {
		.disks = config->disks, .count = config->disk_count,
		.files = snapshot_disks_are(disks, SNAPSHOT_DISKS_REFLINK) ? disks->files : NULL,
	};
	struct disk_keeper *keeper;
	int code;

	*count = 0;
	if (!config->disk_count)
		return 0;
	if (disks->copier)
		disk_copier_collect(disks->copier);
	code = disk_keeper_create(&options, &disks->copier, &keeper, err);
	if (code)
		return code;
	code = disk_keeper_wait(keeper, disks->options.cancel_fd, ms, identities, err);
	disk_keeper_destroy(keeper);
	if (!code)
		*count = config->disk_count;
	return code == -ECANCELED ? disks->options.tick(disks->options.opaque, err) ?: code : code;
}

uint64_t snapshot_disks_left(const struct snapshot_disk_set *disks)
{
	return disks && disks->copier ? disk_copier_left(disks->copier) : 0;
}
