/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts of a disk its guest has changed, for a copy at the same time (vmm/migration/disk_sender.c). See virtio.h.
 *
 * A part is marked after the kernel has completed an operation on it, successful or not, and never before: a mark made
 * when a write begins could be collected, and the part read, before the write has reached the file, and the change
 * would be lost. So a part that is read while it is written is marked afterwards, and read again. When the device is
 * drained, all marks are set, because a drain waits for all operations.
 */
#include "core/bitmap.h"
#include "devices/virtio/blk_internal.h"

static size_t blk_dirty_granules(const struct blk *blk)
{
	return (size_t)((blk->file.sectors * BLK_SECTOR + (VIRTIO_BLK_GRANULE - 1)) / VIRTIO_BLK_GRANULE);
}

static struct blk *blk_dirty_to_blk(struct virtio_device *disk)
{
	return container_of(disk, struct blk, device);
}

void blk_mark(struct blk *blk, uint64_t offset, uint64_t size)
{
	if (!atomic_load_explicit(&blk->tracked, memory_order_acquire) || !size)
		return;
	for (uint64_t i = offset / VIRTIO_BLK_GRANULE; i <= (offset + (size - 1)) / VIRTIO_BLK_GRANULE; i++)
		bitmap_set(blk->dirty, i);
}

/* The bitmap is kept until the disk is destroyed: a queue's thread may still set a mark when tracking ends. */
int virtio_blk_track(struct virtio_device *disk, struct err *err)
{
	struct blk *blk = blk_dirty_to_blk(disk);

	if (!blk->dirty)
		blk->dirty = calloc(bitmap_longs(blk_dirty_granules(blk)), sizeof(*blk->dirty));
	if (!blk->dirty)
		return err_sys(err, -ENOMEM, "--disk %s", blk->id);
	memset(blk->dirty, 0, bitmap_longs(blk_dirty_granules(blk)) * sizeof(*blk->dirty));
	atomic_store_explicit(&blk->tracked, true, memory_order_release);
	return 0;
}

void virtio_blk_untrack(struct virtio_device *disk)
{
	atomic_store(&blk_dirty_to_blk(disk)->tracked, false);
}

void virtio_blk_collect(struct virtio_device *disk, unsigned long *bitmap)
{
	struct blk *blk = blk_dirty_to_blk(disk);

	bitmap_take(blk->dirty, 0, blk_dirty_granules(blk), bitmap);
}

void virtio_blk_image(struct virtio_device *disk, struct virtio_blk_image *ret)
{
	const struct blk *blk = blk_dirty_to_blk(disk);

	*ret = (struct virtio_blk_image){
		.fd = blk->file.buffered_fd, .size = blk->file.sectors * BLK_SECTOR, .readonly = blk->file.readonly,
		.direct = blk->file.direct,
	};
}
