/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another image for a virtio disk whose guest runs on, see virtio.h: a placeholder gets the image that it stands for. The
 * descriptors are exchanged while no request is in flight; each queue's thread then tells its own ring (blk.c), which
 * takes that from no other. Called by vmm/machine/machine_replace.c.
 */
#include "devices/virtio/blk_internal.h"

#include "core/monotonic.h"

#include <sys/stat.h>

#define LOCK_MS 100 /* longer than an access of the guest that does not wait for the device */

struct virtio_blk_spare {
	struct blk_file file;
	char id[64]; /* of the disk */
};

static struct blk *blk_replace_to_blk(struct virtio_device *device)
{
	return container_of(device, struct blk, device);
}

static int blk_replace_check_other(const struct blk *blk, const struct virtio_blk_passed *passed, const char *path,
				   struct err *err)
{
	struct stat here, there;

	if (fstat(blk->file.fd, &here) || fstat(passed->fd, &there) || here.st_dev != there.st_dev ||
	    here.st_ino != there.st_ino)
		return 0;
	return err_set(err, -EEXIST, "--disk %s: it is the image of %s already; mvmm disk resize shows the guest its size",
		       path, blk->id);
}

int virtio_blk_spare_open(struct virtio_device *disk, const char *path, const struct virtio_blk_passed *passed,
			  struct virtio_blk_spare **ret, struct err *err)
{
	const struct blk *blk = blk_replace_to_blk(disk);
	const struct virtio_blk_options options = {
		.id = blk->id, .path = path, .passed = passed, .readonly = blk->file.readonly, .direct = blk->file.direct,
		.lockless = blk->file.lockless, .sector_size = blk->file.block_size,
	};
	struct virtio_blk_spare *spare;
	int rc = blk_replace_check_other(blk, passed, path, err);

	if (rc)
		return rc;
	spare = calloc(1, sizeof(*spare));
	if (!spare)
		return err_sys(err, -ENOMEM, "--disk %s", path);
	memcpy(spare->id, blk->id, sizeof(spare->id));
	rc = blk_file_open(&options, disk->log, &spare->file, err);
	if (rc) {
		free(spare);
		return rc;
	}
	*ret = spare;
	return 0;
}

/* What was known of the image before. */
static void blk_replace_forget(struct blk *blk)
{
	struct blk_fault *fault = &blk->fault;

	pthread_mutex_lock(&fault->lock);
	fault->count = fault->untold = 0;
	fault->size_told = false;
	fault->last[0] = 0;
	pthread_mutex_unlock(&fault->lock);
	atomic_store(&blk->cached, false);
	for (unsigned int i = 0; i < blk->device.queue_count; i++) {
		struct blk_queue *q = &blk->queues[i];

		q->no_punch = q->no_zero_range = false;
		q->stale_files = true;
	}
}

int virtio_blk_spare_swap(struct virtio_device *disk, struct virtio_blk_spare *spare, struct err *err)
{
	struct blk *blk = blk_replace_to_blk(disk);
	const struct timespec until = monotonic_deadline(monotonic_ms() + LOCK_MS);
	const struct blk_file before = blk->file;
	struct virtio_blk_health health;

	virtio_blk_health(disk, &health);
	if (health.kept)
		return err_set(err, -EBUSY, "%s: %u requests have failed (%s) and wait for mvmm resume", blk->id, health.kept,
			       health.last);
	if (pthread_mutex_clocklock(&disk->lock, CLOCK_MONOTONIC, &until))
		return err_set(err, -EBUSY, "%s: the guest waits for it, and it does not answer", blk->id);
	blk->file = spare->file;
	spare->file = before;
	blk_replace_forget(blk);
	if (blk->state.sectors != blk->file.sectors) {
		blk->state.sectors = blk->file.sectors;
		virtio_device_config_changed(disk);
	}
	pthread_mutex_unlock(&disk->lock);
	return 0;
}

static int blk_replace_flush(const struct blk_file *file, const char *id, struct err *err)
{
	return file->readonly || fdatasync(file->fd) == 0 ? 0 :
	       err_sys(err, -errno, "%s: what the guest has written last is lost: flush", id);
}

int virtio_blk_spare_close(struct virtio_blk_spare *spare, struct err *err)
{
	int rc;

	if (!spare)
		return 0;
	rc = blk_replace_flush(&spare->file, spare->id, err);
	blk_file_close(&spare->file);
	free(spare);
	return rc;
}

int virtio_blk_flush(struct virtio_device *disk, struct err *err)
{
	const struct blk *blk = blk_replace_to_blk(disk);

	return blk_replace_flush(&blk->file, blk->id, err);
}
