/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts virtio devices on the guest's bus, and lets disks and network cards come and go while the guest runs, by way of
 * the machine's slots. See machine.h and machine_internal.h.
 *
 * A worker makes a device, and closes one, for that may wait for storage. A device that leaves completes its requests
 * before; none is cancelled.
 */
#include "vmm/machine/machine_internal.h"

#include "boot/layout_x86.h"
#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/machine/machine_files.h"

/* A device that can leave. */
struct plugged {
	struct machine *machine;
	struct virtio_transport *transport;
	struct slot *slot;
	struct plugged *next;
};

/* ---- leaving ---- */

static int machine_plug_settle(void *opaque, struct err *err)
{
	const struct plugged *plugged = opaque;
	int ret = virtio_transport_drain(plugged->transport, monotonic_ms(), err);

	return ret == -ETIMEDOUT ? -EINPROGRESS : ret;
}

bool machine_plug_may_go_on(const struct machine *machine)
{
	return !machine->paused && !machine->pausing && !machine->settling;
}

void machine_plug_go_on(const struct machine *machine, struct virtio_transport *transport)
{
	if (machine_plug_may_go_on(machine))
		virtio_transport_resume(transport);
}

static void machine_plug_unsettle(void *opaque)
{
	const struct plugged *plugged = opaque;

	machine_plug_go_on(plugged->machine, plugged->transport);
}

static int machine_plug_disconnect(void *opaque, struct err *err)
{
	const struct plugged *plugged = opaque;
	struct virtio_device *device = virtio_transport_device(plugged->transport);
	int ret = 0;

	if (device->type == VIRTIO_ID_BLOCK)
		virtio_blk_disconnect(device);
	else
		ret = virtio_net_set_link(device, false, err);
	if (!ret)
		machine_plug_go_on(plugged->machine, plugged->transport);
	return ret;
}

static void machine_plug_unlist(struct plugged *plugged)
{
	struct machine *machine = plugged->machine;
	struct plugged **link = &machine->plugged;
	size_t i = 0;

	while (*link != plugged)
		link = &(*link)->next;
	*link = plugged->next;
	while (machine->virtio[i] != plugged->transport)
		i++;
	machine->virtio_count--;
	memmove(&machine->virtio[i], &machine->virtio[i + 1], (machine->virtio_count - i) * sizeof(machine->virtio[0]));
}

static void machine_plug_detach(void *opaque)
{
	struct plugged *plugged = opaque;

	machine_plug_unlist(plugged);
	plugged->machine->unplugging++;
	virtio_transport_detach(plugged->transport);
}

static int machine_plug_flush(void *argument)
{
	struct virtio_device *disk = argument;
	struct err err;

	if (virtio_blk_flush(disk, &err))
		log_error(disk->log, "%s", err.text);
	virtio_blk_unlock(disk);
	return 0;
}

static void machine_plug_close_disk(void *opaque)
{
	const struct plugged *plugged = opaque;

	thread_call(machine_plug_flush, virtio_transport_device(plugged->transport));
}

static void machine_plug_close_net(void *opaque)
{
}

static void machine_plug_gone(void *opaque, bool removed)
{
	struct plugged *plugged = opaque;
	const struct machine_host *host = &plugged->machine->host;

	plugged->machine->unplugging--;
	if (removed && host->device_gone)
		host->device_gone(host->opaque, virtio_transport_device(plugged->transport)->id);
	virtio_transport_destroy(plugged->transport);
	free(plugged);
}

#define SLOT_OPS(close_)                                                                                          \
	.settle = machine_plug_settle, .unsettle = machine_plug_unsettle, .disconnect = machine_plug_disconnect,   \
	.detach = machine_plug_detach, .close = close_, .gone = machine_plug_gone

static const struct slot_ops disk_ops = {.kind = "disk", .noun = "disk", SLOT_OPS(machine_plug_close_disk)};
static const struct slot_ops net_ops = {.kind = "net", .noun = "network card", SLOT_OPS(machine_plug_close_net)};

/* How a device leaves; NULL: it stays as long as the machine. */
static const struct slot_ops *machine_plug_ops(const struct virtio_device *device)
{
	return device->type == VIRTIO_ID_BLOCK ? &disk_ops : device->type == VIRTIO_ID_NET ? &net_ops : NULL;
}

static int machine_plug_check(const struct machine *machine, const char *kind, const char *id, struct err *err)
{
	if (machine->config->transport != TRANSPORT_MMIO)
		return 0;
	return err_set(err, -EOPNOTSUPP, "%s %s: the machine runs with --transport mmio, which has no hot plug; its disks and "
		       "network cards are those of its start", kind, id);
}

int machine_remove_device(struct machine *machine, const char *kind, const char *id, bool force, unsigned int timeout_ms,
			  void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	const struct slot_ops *ops = strcmp(kind, disk_ops.kind) == 0 ? &disk_ops : &net_ops;

	if (strcmp(kind, "vfio") == 0)
		return host_devices_remove(machine->host_devices, id, force, timeout_ms, done, opaque, err);
	if (machine_plug_check(machine, kind, id, err))
		return -EOPNOTSUPP;
	return slots_remove(machine->slots, ops, id, force, timeout_ms, done, opaque, err);
}

void machine_plug_end(struct machine *machine)
{
	while (machine->plugged) {
		struct plugged *plugged = machine->plugged;

		if (slots_is_asked(plugged->slot)) {
			slots_leave(plugged->slot);
			continue;
		}
		machine->plugged = plugged->next;
		slots_forget(plugged->slot);
		free(plugged);
	}
}

/* ---- coming ---- */

static int machine_plug_list(struct machine *machine, struct virtio_device *device, struct virtio_transport *transport,
			     struct slot **ret, struct err *err)
{
	const struct slot_ops *ops = machine_plug_ops(device);
	struct plugged *plugged;
	int code;

	if (!ops || machine->config->transport == TRANSPORT_MMIO)
		return 0;
	plugged = calloc(1, sizeof(*plugged));
	if (!plugged)
		return err_sys(err, -ENOMEM, "%s", device->id);
	*plugged = (struct plugged){.machine = machine, .transport = transport, .next = machine->plugged};
	code = slots_add(machine->slots, ops, plugged, device->id,
			 (uint8_t)PCI_DEVFN(virtio_transport_slot(transport), 0), &plugged->slot, err);
	if (code < 0) {
		free(plugged);
		return code;
	}
	machine->plugged = plugged;
	*ret = plugged->slot;
	return 0;
}

static int machine_plug_on_mmio(struct machine *machine, struct virtio_device *device, int devfn,
				struct virtio_transport **ret, struct err *err)
{
	struct virtio_mmio_config config = {
		.mmio = machine->mmio, .slot = devfn < 0 ? (unsigned int)machine->virtio_count + 1 : (unsigned int)devfn >> 3,
	};

	if (!config.slot || config.slot > LAYOUT_VIRTIO_MMIO_DEVICES)
		return err_set(err, -EINVAL, "%s: there is no page %u", device->id, config.slot);
	config.addr = layout_virtio_mmio(config.slot);
	irqchip_line(machine->irqchip, layout_virtio_mmio_gsi(config.slot), &config.line);
	return virtio_mmio_create(device, &config, ret, err);
}

static int machine_plug_on_bus(struct machine *machine, struct virtio_device *device, int devfn, struct slot **slot,
			       struct err *err)
{
	struct virtio_transport *transport;
	int code;

	if (machine->virtio_count == MAX_VIRTIO)
		code = err_set(err, -ENOSPC, "more than %u devices", MAX_VIRTIO);
	else if (machine->config->transport == TRANSPORT_MMIO)
		code = machine_plug_on_mmio(machine, device, devfn, &transport, err);
	else
		code = virtio_pci_create(device, machine->pci, machine->mmio, irqchip_msi(machine->irqchip),
					 machine->host.loop, devfn, &transport, err);
	if (code < 0) {
		device->ops->destroy(device);
		return code;
	}
	code = machine_plug_list(machine, device, transport, slot, err);
	if (code < 0)
		virtio_transport_destroy(transport);
	else
		machine->virtio[machine->virtio_count++] = transport;
	return code;
}

int machine_plug(struct machine *machine, struct virtio_device *device, int devfn, struct err *err)
{
	struct slot *slot;

	return machine_plug_on_bus(machine, device, devfn, &slot, err);
}

int machine_make_net(struct machine *machine, const struct net_config *net, struct virtio_device **ret,
		     struct err *err)
{
	const int *fds;
	size_t count = machine_files_passed(machine->host.files, net->id, &fds);
	struct virtio_net_options options = {
		.id = net->id,
		.tap = net->kind == NET_TAP ? net->target : NULL,
		.tap_fds = count == net->queues ? fds : NULL,
		.passt = net->kind == NET_PASST,
		.socket = net->kind == NET_PASST ? net->target : NULL,
		.queues = net->queues,
		.vhost = net->vhost,
		.unplugged = !net->link,
		.dirty = &machine->dirty,
		.machine = machine->config->name,
	};

	if (net->kind == NET_FD)
		return err_set(err, -EINVAL, "--net fd=%d: descriptors are only taken at the start", net->fd);
	memcpy(options.mac, net->mac, sizeof(options.mac));
	return virtio_net_create(&options, machine->memory, machine->host.log, ret, err);
}

/* A device that comes while the guest runs. */
struct plug_arrival {
	struct machine *machine;
	const struct disk_config *disk; /* or net */
	const struct net_config *net;
	int devfn;
	struct virtio_device *device;
	struct err *err; /* while it is made */
	void (*done)(void *opaque, int code, const struct err *err);
	void *opaque;
};

static int machine_plug_do_make(void *argument)
{
	struct plug_arrival *arrival = argument;

	return arrival->disk ? machine_disks_make(arrival->machine, arrival->disk, &arrival->device, arrival->err) :
			       machine_make_net(arrival->machine, arrival->net, &arrival->device, arrival->err);
}

static int machine_plug_make(void *opaque, struct err *err)
{
	struct plug_arrival *arrival = opaque;

	arrival->err = err;
	return thread_call(machine_plug_do_make, arrival);
}

static void machine_plug_made(void *opaque, int code, const struct err *err)
{
	struct plug_arrival *arrival = opaque;
	const struct plug_arrival end = *arrival;
	struct err why = *err;
	struct slot *slot;

	end.machine->plugging--;
	if (!code)
		code = machine_plug_on_bus(end.machine, end.device, end.devfn, &slot, &why);
	if (!code) {
		machine_limits_begin_device(end.machine, end.device);
		slots_announce(slot);
	}
	free(arrival);
	end.done(end.opaque, code, code ? &why : NULL);
}

static int machine_plug_begin(const struct plug_arrival *want, const struct slot_ops *ops, const char *id,
			      struct err *err)
{
	struct machine *machine = want->machine;
	int devfn = machine_plug_check(machine, ops->kind, id, err) ?:
		    slots_find_free(machine->slots, ops->kind, id, err);
	int code;
	struct plug_arrival *arrival;

	if (devfn < 0)
		return devfn;
	arrival = malloc(sizeof(*arrival));
	if (!arrival)
		return err_sys(err, -ENOMEM, "--%s %s", ops->kind, id);
	*arrival = *want;
	arrival->devfn = devfn;
	code = slots_begin(machine->slots, &(struct slots_job){SLOTS_ADDING, id, machine_plug_make, machine_plug_made,
							       arrival}, err);
	if (code < 0) {
		free(arrival);
		return err_prefix(err, code, "%s", id);
	}
	machine->plugging++;
	return 0;
}

int machine_add_disk(struct machine *machine, const struct disk_config *disk,
		     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	return machine_plug_begin(&(struct plug_arrival){.machine = machine, .disk = disk, .done = done, .opaque = opaque},
				  &disk_ops, disk->id, err);
}

int machine_add_net(struct machine *machine, const struct net_config *net,
		    void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	return machine_plug_begin(&(struct plug_arrival){.machine = machine, .net = net, .done = done, .opaque = opaque},
				  &net_ops, net->id, err);
}

int machine_set_link(struct machine *machine, const char *id, bool plugged, struct err *err)
{
	for (size_t i = 0; i < machine->virtio_count; i++) {
		struct virtio_device *device = virtio_transport_device(machine->virtio[i]);

		if (device->type == VIRTIO_ID_NET && strcmp(device->id, id) == 0)
			return virtio_net_set_link(device, plugged, err);
	}
	return err_set(err, -ENODEV, "%s: no network card has this id; mvmm info lists them", id);
}
