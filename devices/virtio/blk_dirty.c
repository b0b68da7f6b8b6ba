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
	return (size_t)((blk_sectors(blk) * BLK_SECTOR + (VIRTIO_BLK_GRANULE - 1)) / VIRTIO_BLK_GRANULE);
}

static struct blk *blk_dirty_to_blk(struct virtio_device *disk)
{
	return container_of(disk, struct blk, device);
}

void blk_mark(struct blk *blk, uint64_t offset, uint64_t size)
{
	struct blk_bitmap *dirty;

	if (!atomic_load_explicit(&blk->tracked, memory_order_acquire) || !size)
		return;
	dirty = __atomic_load_n(&blk->dirty, __ATOMIC_ACQUIRE);
	for (uint64_t i = offset / VIRTIO_BLK_GRANULE; i <= (offset + (size - 1)) / VIRTIO_BLK_GRANULE; i++)
		if (i < dirty->granules)
			bitmap_set(dirty->bits, i);
}

static struct blk_bitmap *blk_dirty_grow(struct blk *blk, size_t granules)
{
	struct blk_bitmap *dirty = calloc(1, sizeof(*dirty) + bitmap_longs(granules) * sizeof(dirty->bits[0]));

	if (!dirty)
		return NULL;
	dirty->granules = granules;
	dirty->before = blk->dirty;
	__atomic_store_n(&blk->dirty, dirty, __ATOMIC_RELEASE);
	return dirty;
}

/* Bitmaps are kept until the disk is destroyed: a queue's thread may still set a mark when tracking ends. */
int virtio_blk_track(struct virtio_device *disk, struct err *err)
{
	struct blk *blk = blk_dirty_to_blk(disk);
	size_t granules = blk_dirty_granules(blk);
	struct blk_bitmap *dirty = blk->dirty;

	if (!dirty || dirty->granules < granules)
		dirty = blk_dirty_grow(blk, granules);
	if (!dirty)
		return err_sys(err, -ENOMEM, "--disk %s", blk->id);
	memset(dirty->bits, 0, bitmap_longs(dirty->granules) * sizeof(dirty->bits[0]));
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

	bitmap_take(blk->dirty->bits, 0, blk_dirty_granules(blk), bitmap);
}

void blk_dirty_done(struct blk *blk)
{
	struct blk_bitmap *dirty = blk->dirty, *before;

	for (; dirty; dirty = before) {
		before = dirty->before;
		free(dirty);
	}
}

void virtio_blk_image(struct virtio_device *disk, struct virtio_blk_image *ret)
{
	const struct blk *blk = blk_dirty_to_blk(disk);

	*ret = (struct virtio_blk_image){
		.fd = blk->file.buffered_fd, .size = blk_sectors(blk) * BLK_SECTOR, .readonly = blk->file.readonly,
		.direct = blk->file.direct,
	};
}
