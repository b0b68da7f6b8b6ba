/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host devices of a machine (host_devices.h) reach of it: KVM, memory, the guest's bus, the vCPUs. See
 * machine_internal.h.
 */
#include "vmm/machine/machine_internal.h"

#include "vmm/machine/machine_offer.h"
#include "vmm/machine/memory_room.h"

static int machine_host_devices_slot_for(void *opaque, const char *id, struct err *err)
{
	const struct machine *machine = opaque;

	return machine_offer_devfn(machine->host.incoming, id, err);
}

static int machine_host_devices_add_vfio_file(void *opaque, int fd, struct err *err)
{
	struct machine *machine = opaque;

	return kvm_vfio_add(&machine->kvm, fd, err);
}

static void machine_host_devices_remove_vfio_file(void *opaque, int fd)
{
	struct machine *machine = opaque;

	kvm_vfio_remove(&machine->kvm, fd);
}

/*
 * Devices pin all guest memory. What is not there yet, or has gone back by the balloon, is taken from the host. Huge
 * pages have been reserved.
 */
static int machine_host_devices_need_memory(void *opaque, uint64_t bytes, struct err *err)
{
	struct machine *machine = opaque;
	struct virtio_balloon_stats balloon = {0};
	uint64_t used = ram_file(machine->ram) < 0 ? memory_used("") : memory_own("");
	uint64_t missing = bytes - MIN(bytes, used), room = memory_room("");

	if (machine->config->memory.hugepages == HUGEPAGES_NONE && missing > room)
		return err_set(err, -ENOMEM, "devices need all %llu MiB of the guest's memory, of which about %llu MiB are "
			       "not in use yet, and the host has room for %llu MiB", (unsigned long long)bytes >> 20,
			       (unsigned long long)missing >> 20, (unsigned long long)room >> 20);
	if (machine->balloon)
		virtio_balloon_get_stats(machine->balloon, &balloon);
	if (balloon.actual)
		log_info(machine->host.log, "balloon: devices need all of the guest's memory: the %llu MiB that it gave "
			 "back are taken from the host again", (unsigned long long)balloon.actual >> 20);
	return 0;
}

static int machine_host_devices_map_bar(void *opaque, uint64_t gpa, uint64_t size, void *host, struct err *err)
{
	struct machine *machine = opaque;

	return kvm_map(&machine->kvm, gpa, size, host, err);
}

static void machine_host_devices_unmap_bar(void *opaque, uint64_t gpa)
{
	struct machine *machine = opaque;

	kvm_unmap(&machine->kvm, gpa);
}

static void machine_host_devices_device_gone(void *opaque, const char *id)
{
	struct machine *machine = opaque;

	if (machine->host.device_gone)
		machine->host.device_gone(machine->host.opaque, id);
}

static const struct host_devices_ops host_devices_ops = {
	.add_file = machine_host_devices_add_vfio_file, .remove_file = machine_host_devices_remove_vfio_file,
	.need_memory = machine_host_devices_need_memory,
	.map = {machine_host_devices_map_bar, machine_host_devices_unmap_bar},
	.gone = machine_host_devices_device_gone,
};

int machine_host_devices_create(struct machine *machine, struct err *err)
{
	const struct host_devices_machine around = {
		.ops = &host_devices_ops, .opaque = machine, .memory = machine->memory, .dirty = &machine->dirty,
		.pci = machine->pci, .slots = machine->slots, .files = machine->host.files,
		.slot_for = machine->host.incoming ? machine_host_devices_slot_for : NULL,
		.msi = irqchip_msi(machine->irqchip), .loop = machine->host.loop,
		.log = machine->host.log,
	};
	int ret = host_devices_create(machine->config, &around, &machine->host_devices, err);

	if (ret == 0 && machine->balloon)
		virtio_balloon_set_release(machine->balloon, host_devices_release, machine->host_devices);
	return ret;
}
