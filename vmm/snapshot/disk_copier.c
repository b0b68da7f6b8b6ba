/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_copier.h. */
#include "vmm/snapshot/disk_copier.h"

#include <fcntl.h>

#include "core/monotonic.h"

#define TICK_NS 100000000ull
#define LITTLE MIB(4) /* takes about 2 ms */
#define FUTILE 3u     /* so many passes that do not halve what is left */

struct disk_copier {
	struct disk_copier_options options;
	struct disk_copy disks[WIRE_MAX_DISKS]; /* with descriptors of its own, as the targets */
	struct disk_target targets[WIRE_MAX_DISKS];
	struct disk_reader *reader;
	bool fresh; /* the first pass, which meets each block once: the files have nothing yet */
	bool given_up; /* atomic */
	uint64_t left; /* of this pass; atomic */
	uint64_t ticked;
};

static int disk_copier_pass_by(struct disk_copier *copier, uint64_t size, struct err *err)
{
	uint64_t now;

	__atomic_sub_fetch(&copier->left, MIN(copier->left, size), __ATOMIC_RELEASE);
	if (__atomic_load_n(&copier->given_up, __ATOMIC_ACQUIRE))
		return err_set(err, -ECANCELED, "given up");
	now = monotonic_ns();
	if (!copier->options.tick || now < copier->ticked + TICK_NS)
		return 0;
	copier->ticked = now;
	return copier->options.tick(copier->options.opaque, err);
}

static int disk_copier_write_blocks(void *opaque, size_t disk, uint64_t offset, const uint8_t *data, uint64_t size,
				    struct err *err)
{
	struct disk_copier *copier = opaque;
	const struct disk_target *target = &copier->targets[disk];
	int code = disk_target_write(target, offset, data, size, err);

	if (!code) /* begins to write it back, so that less is left for the sync at the end; a hint */
		sync_file_range(target->fd, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
	return code ?: disk_copier_pass_by(copier, size, err);
}

static int disk_copier_make_hole(void *opaque, size_t disk, uint64_t offset, uint64_t size, struct err *err)
{
	struct disk_copier *copier = opaque;
	int code = copier->fresh ? 0 : disk_target_zero(&copier->targets[disk], offset, size, err);

	return code ?: disk_copier_pass_by(copier, size, err);
}

static const struct disk_reader_sink sink = {.blocks = disk_copier_write_blocks, .hole = disk_copier_make_hole};

/* ---- the outside ---- */

static int disk_copier_pass(struct disk_copier *copier, struct err *err)
{
	int code;

	__atomic_store_n(&copier->left, disk_reader_left(copier->reader), __ATOMIC_RELEASE);
	code = disk_reader_read(copier->reader, 0, err);
	copier->fresh = false;
	return code;
}

int disk_copier_follow(struct disk_copier *copier, struct err *err)
{
	uint64_t before = UINT64_MAX;
	unsigned int futile = 0;
	int code = 0;

	while (!code) {
		disk_reader_collect(copier->reader);
		copier->left = disk_reader_left(copier->reader);
		futile = copier->left > before / 2 ? futile + 1 : 0;
		if (!copier->fresh && (copier->left <= LITTLE || futile == FUTILE))
			return 0;
		before = copier->left;
		code = disk_copier_pass(copier, err);
	}
	return code;
}

void disk_copier_collect(struct disk_copier *copier)
{
	disk_reader_collect(copier->reader);
}

void disk_copier_hand_over(struct disk_copier *copier)
{
	copier->options.tick = NULL;
}

int disk_copier_copy_rest(struct disk_copier *copier, struct err *err)
{
	return disk_copier_pass(copier, err);
}

void disk_copier_give_up(struct disk_copier *copier)
{
	__atomic_store_n(&copier->given_up, true, __ATOMIC_RELEASE);
}

int disk_copier_finish(struct disk_copier *copier, struct err *err)
{
	disk_copier_collect(copier);
	return disk_copier_copy_rest(copier, err);
}

uint64_t disk_copier_left(const struct disk_copier *copier)
{
	return __atomic_load_n(&copier->left, __ATOMIC_ACQUIRE);
}

static int disk_copier_add(struct disk_copier *copier, size_t i, struct err *err)
{
	const struct disk_copy *disk = &copier->disks[i];
	struct disk_target *target = &copier->targets[i];

	*target = (struct disk_target){.fd = fcntl(copier->options.fds[i], F_DUPFD_CLOEXEC, 3), .size = disk->size};
	memcpy(target->id, disk->id, sizeof(target->id));
	copier->left += disk->size;
	if (target->fd < 0)
		return err_sys(err, -errno, "disk %s: the file for its copy", disk->id);
	if (ftruncate(target->fd, 0) < 0 || ftruncate(target->fd, (off_t)disk->size) < 0)
		return err_sys(err, -errno, "disk %s: the file for its copy cannot be set to %llu bytes", disk->id,
			       (unsigned long long)disk->size);
	return 0;
}

static int disk_copier_add_reader(struct disk_copier *copier, struct err *err)
{
	const struct disk_copier_options *options = &copier->options;
	const struct disk_reader_options reader = {
		.disks = copier->disks, .count = options->count, .sink = &sink, .opaque = copier,
	};
	int code = 0;

	for (size_t i = 0; i < options->count; i++) {
		copier->disks[i] = options->disks[i];
		copier->disks[i].fd = fcntl(options->disks[i].fd, F_DUPFD_CLOEXEC, 3);
		if (copier->disks[i].fd < 0 && !code)
			code = err_sys(err, -errno, "disk %s", options->disks[i].id);
	}
	return code ?: disk_reader_create(&reader, &copier->reader, err);
}

int disk_copier_create(const struct disk_copier_options *options, struct disk_copier **ret, struct err *err)
{
	struct disk_copier *copier = calloc(1, sizeof(*copier));
	int code;

	if (!copier)
		return err_sys(err, -ENOMEM, "copying disks");
	copier->options = *options;
	copier->fresh = true;
	for (size_t i = 0; i < options->count; i++)
		copier->targets[i].fd = -1;
	code = disk_copier_add_reader(copier, err);
	for (size_t i = 0; i < options->count && !code; i++)
		code = disk_copier_add(copier, i, err);
	if (code)
		disk_copier_destroy(copier);
	else
		*ret = copier;
	return code;
}

void disk_copier_destroy(struct disk_copier *copier)
{
	if (!copier)
		return;
	disk_reader_destroy(copier->reader);
	for (size_t i = 0; i < copier->options.count; i++) {
		fd_close(&copier->disks[i].fd);
		fd_close(&copier->targets[i].fd);
	}
	free(copier);
}
