/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's disks: makes them, pauses the machine when one of them asks for it, and what can be asked of them. See
 * machine.h and machine_internal.h. */
#include "vmm/machine/machine_internal.h"

#include "core/irq.h"
#include "vmm/machine/machine_files.h"
#include "vmm/machine/machine_offer.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

/* Reports a disk whose host has failed it. True: it keeps requests. */
static bool machine_disks_report(struct machine *machine, struct virtio_device *disk)
{
	struct virtio_blk_health health;

	virtio_blk_health(disk, &health);
	if (virtio_blk_take_news(disk) && machine->host.disk_error)
		machine->host.disk_error(machine->host.opaque, disk->id, &health);
	return health.kept;
}

static void machine_disks_on_stop(void *opaque, uint32_t events)
{
	struct machine *machine = opaque;
	bool kept = false;

	if (!eventfd_drain(machine->disk_stop_fd))
		return;
	for (size_t i = 0; i < machine->virtio_count; i++)
		if (virtio_transport_device(machine->virtio[i])->type == VIRTIO_ID_BLOCK)
			kept |= machine_disks_report(machine, virtio_transport_device(machine->virtio[i]));
	if (kept && machine->host.disk_failed)
		machine->host.disk_failed(machine->host.opaque);
}

int machine_disks_begin(struct machine *machine, struct err *err)
{
	machine->disk_stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (machine->disk_stop_fd < 0)
		return err_sys(err, -errno, "eventfd");
	return event_loop_watch(machine->host.loop, machine->disk_stop_fd, EPOLLIN, machine_disks_on_stop, machine,
				&machine->disk_stop, err);
}

void machine_disks_end(struct machine *machine)
{
	event_source_remove(machine->disk_stop);
	fd_close(&machine->disk_stop_fd);
}

/* The guest of another host keeps the size of its sectors. */
static unsigned int machine_disks_sector_size(const struct machine *machine, const struct disk_config *disk)
{
	return (machine->host.incoming ? machine_offer_block_size(machine->host.incoming, disk->id) : 0) ?:
	       disk->sector_size;
}

int machine_disks_make(struct machine *machine, const struct disk_config *disk, struct virtio_device **ret,
		       struct err *err)
{
	const int *fds;
	size_t count = machine_files_passed(machine->host.files, disk->id, &fds);
	const struct virtio_blk_passed passed = {count ? fds[0] : -1, count > 1 ? fds[1] : -1};
	const struct virtio_blk_options options = {
		.id = disk->id,
		.path = disk->path,
		.file = count ? NULL : machine_files_find(machine->host.files, disk->below, disk->path),
		.below = disk->below,
		.passed = count ? &passed : NULL,
		.readonly = disk->readonly,
		.direct = disk->direct,
		.lockless = !disk->lock,
		.serial = disk->serial,
		.unlocked = machine->host.incoming && !machine_offer_copies(machine->host.incoming, disk->id),
		.queues = disk->queues,
		.sector_size = machine_disks_sector_size(machine, disk),
		.stop_on_error = disk->on_error == ON_ERROR_STOP,
		.news = true,
		.stop_fd = machine->disk_stop_fd,
	};

	return virtio_blk_create(&options, machine->memory, machine->host.log, ret, err);
}

struct virtio_transport *machine_find_disk(const struct machine *machine, const char *id)
{
	for (size_t i = 0; i < machine->virtio_count; i++) {
		const struct virtio_device *device = virtio_transport_device(machine->virtio[i]);

		if (device->type == VIRTIO_ID_BLOCK && strcmp(device->id, id) == 0)
			return machine->virtio[i];
	}
	return NULL;
}

/* ---- what the host does to disks ---- */

int machine_check_disks(const struct machine *machine, struct err *err)
{
	for (size_t i = 0; i < machine->virtio_count; i++) {
		struct virtio_device *device = virtio_transport_device(machine->virtio[i]);
		struct virtio_blk_health health;

		if (device->type != VIRTIO_ID_BLOCK)
			continue;
		virtio_blk_health(device, &health);
		if (health.kept)
			return err_set(err, -EBUSY, "%s: %u requests have failed (%s) and wait for mvmm resume", device->id,
				       health.kept, health.last);
	}
	return 0;
}

int machine_resize_disk(struct machine *machine, const char *id, uint64_t *bytes, struct err *err)
{
	struct virtio_transport *disk = machine_find_disk(machine, id);

	return disk ? virtio_blk_resize(virtio_transport_device(disk), bytes, err) :
		      err_set(err, -ENODEV, "%s: no disk has this id; mvmm info lists them", id);
}

int machine_disk_size(const struct machine *machine, const char *id, uint64_t *bytes)
{
	struct virtio_transport *disk = machine_find_disk(machine, id);
	struct virtio_blk_image image;

	if (!disk)
		return -ENODEV;
	virtio_blk_image(virtio_transport_device(disk), &image);
	*bytes = image.size;
	return 0;
}
