/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_copies.h. */
#include "vmm/machine/disk_copies.h"

#include "vmm/machine/machine_internal.h"

#include <stdio.h>
#include <sys/stat.h>

bool disk_copies_wanted(struct virtio_device *device, enum migration_copy which)
{
	struct virtio_blk_image image;

	if (device->type != VIRTIO_ID_BLOCK || which == MIGRATION_COPY_NONE)
		return false;
	virtio_blk_image(device, &image);
	return !image.readonly || which == MIGRATION_COPY_ALL;
}

uint64_t disk_copies_allocated(struct virtio_device *disk)
{
	struct virtio_blk_image image;
	struct stat stat;

	virtio_blk_image(disk, &image);
	return fstat(image.fd, &stat) == 0 && S_ISREG(stat.st_mode) ? MIN((uint64_t)stat.st_blocks * 512, image.size) :
								     image.size;
}

static void disk_copies_collect(void *opaque, unsigned long *bitmap)
{
	virtio_blk_collect(opaque, bitmap);
}

size_t disk_copies_of(const struct machine *machine, enum migration_copy which, struct disk_copy ret[WIRE_MAX_DISKS])
{
	size_t count = 0;

	for (size_t i = 0; i < machine->virtio_count && count < WIRE_MAX_DISKS; i++) {
		struct virtio_device *device = virtio_transport_device(machine->virtio[i]);
		struct virtio_blk_image image;

		if (!disk_copies_wanted(device, which))
			continue;
		virtio_blk_image(device, &image);
		ret[count] = (struct disk_copy){
			.fd = image.fd, .size = image.size, .uncached = image.direct, .collect = disk_copies_collect,
			.opaque = device,
		};
		snprintf(ret[count++].id, sizeof(ret[0].id), "%s", device->id);
	}
	return count;
}

size_t disk_copies_shared(const struct machine *machine, enum migration_copy which,
			  struct disk_shared ret[WIRE_MAX_DISKS])
{
	size_t count = 0;

	for (size_t i = 0; i < machine->virtio_count && count < WIRE_MAX_DISKS; i++) {
		struct virtio_device *device = virtio_transport_device(machine->virtio[i]);
		struct virtio_blk_image image;

		if (device->type != VIRTIO_ID_BLOCK || disk_copies_wanted(device, which))
			continue;
		virtio_blk_image(device, &image);
		if (image.readonly || image.direct)
			continue;
		ret[count] = (struct disk_shared){.fd = image.fd, .flush = fdatasync};
		snprintf(ret[count++].id, sizeof(ret[0].id), "%s", device->id);
	}
	return count;
}

int disk_copies_track(const struct machine *machine, enum migration_copy which, struct err *err)
{
	int code = 0;

	for (size_t i = 0; !code && i < machine->virtio_count; i++)
		if (disk_copies_wanted(virtio_transport_device(machine->virtio[i]), which))
			code = virtio_blk_track(virtio_transport_device(machine->virtio[i]), err);
	if (code)
		disk_copies_untrack(machine, which);
	return code;
}

void disk_copies_untrack(const struct machine *machine, enum migration_copy which)
{
	for (size_t i = 0; i < machine->virtio_count; i++)
		if (disk_copies_wanted(virtio_transport_device(machine->virtio[i]), which))
			virtio_blk_untrack(virtio_transport_device(machine->virtio[i]));
}
