/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts of a disk its guest has changed, for whoever copies it meanwhile (vmm/migration/disk_sender.c). See virtio.h.
 *
 * A part is marked when the kernel has answered an operation on it, well or not, and by no means before: a mark made when a
 * write is begun could be collected, and the part read, before the write has reached the file, and nobody would come back.
 * So a part that is read while it is being written is marked after that, and read again. All marks are there when the device
 * is drained, for that waits for every operation.
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

/* The bitmap stays until the disk goes: a queue's thread may be about to mark when tracking ends. */
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
