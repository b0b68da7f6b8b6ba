/* SPDX-License-Identifier: Apache-2.0 */
/* See machine_info.h. */
#include "vmm/machine/machine_info.h"

#include "devices/virtio/virtio.h"
#include "vfio/migration.h"
#include "vmm/machine/host_devices.h"

#include <stdio.h>

const char *machine_info_kind(const struct virtio_device *device)
{
	static const char *const kinds[] = {
		[VIRTIO_ID_NET] = "net", [VIRTIO_ID_BLOCK] = "disk", [VIRTIO_ID_CONSOLE] = "console",
		[VIRTIO_ID_RNG] = "rng", [VIRTIO_ID_BALLOON] = "balloon", [VIRTIO_ID_VSOCK] = "vsock",
	};

	return device->type < ARRAY_SIZE(kinds) && kinds[device->type] ? kinds[device->type] : "virtio";
}

/* A disk's size, and what the host does to it. */
static void machine_info_add_health(struct virtio_device *device, json_t *object)
{
	struct virtio_blk_health health;
	struct virtio_blk_image image;

	virtio_blk_image(device, &image);
	if (image.readonly)
		json_object_set_new(object, "readonly", json_true());
	if (image.direct)
		json_object_set_new(object, "direct", json_true());
	virtio_blk_health(device, &health);
	json_object_set_new(object, "size", json_integer((json_int_t)health.size));
	if (health.image_size / 512 != health.size / 512)
		json_object_set_new(object, "image_size", json_integer((json_int_t)health.image_size));
	if (!health.failed)
		return;
	json_object_set_new(object, "failed", json_integer((json_int_t)health.failed));
	json_object_set_new(object, "waiting", json_integer(health.kept));
	json_object_set_new(object, "last_failure", json_string(health.last));
}

static int machine_info_add_device(const struct machine *machine, size_t index, json_t *devices)
{
	struct virtio_device *device = machine_virtio(machine, index);
	json_t *object;
	char slot[16];

	machine_virtio_where(machine, index, slot, sizeof(slot));
	object = json_pack("{s:s, s:s, s:s, s:b}", "id", device->id, "kind", machine_info_kind(device), "slot", slot,
			   "active", device->active);
	if (object && device->type == VIRTIO_ID_BLOCK)
		machine_info_add_health(device, object);
	if (object && device->type == VIRTIO_ID_NET && !virtio_net_link(device))
		json_object_set_new(object, "link", json_false());
	return json_array_append_new(devices, object);
}

static int machine_info_add_host_device(const struct host_devices *all, size_t index, json_t *devices)
{
	const struct vfio_device *device;
	struct vfio_device_ids ids;
	struct vfio_pci_info v;
	char slot[16], kind[16];
	json_t *object, *bars = json_array();

	host_devices_info(all, index, &v);
	device = v.device;
	ids = vfio_device_ids(device);
	for (int bar = 0; bar < 7; bar++)
		if (v.mapped_bars >> bar & 1)
			json_array_append_new(bars, json_integer(bar));
	snprintf(slot, sizeof(slot), "00:%02x.%x", v.devfn >> 3, v.devfn & 7);
	snprintf(kind, sizeof(kind), "%04x:%04x", v.vendor, v.product);
	object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:s, s:i, s:o, s:s, s:s, s:s, s:b}",
			   "id", v.id, "kind", "vfio", "slot", slot, "host", device->host.name, "pci", kind,
			   "backend", device->backend->name, "ioas", (json_int_t)ids.ioas, "hwpt", (json_int_t)ids.hwpt,
			   "group", device->host.group, "interrupts", v.interrupts, "vectors", (int)v.vectors,
			   "mapped_bars", bars, "dirty_tracking", vfio_coverage_name(vfio_device_coverage(device)),
			   "migration", vfio_migration_flags_name(vfio_migration_flags(device)), "reset", v.reset,
			   "fenced", v.fenced);
	return json_array_append_new(devices, object);
}

/* UINT64_MAX: the guest has not reported it. */
static int machine_info_set_bytes(json_t *object, const char *key, uint64_t value)
{
	return value == UINT64_MAX ? 0 : json_object_set_new(object, key, json_integer((json_int_t)value));
}

static int machine_info_add_balloon(struct virtio_device *balloon, json_t *info)
{
	json_t *object = json_object();
	struct virtio_balloon_stats stats;
	int ret = json_object_set_new(info, "balloon", object);

	virtio_balloon_get_stats(balloon, &stats);
	ret |= machine_info_set_bytes(object, "actual", stats.actual);
	ret |= machine_info_set_bytes(object, "target", stats.target);
	ret |= machine_info_set_bytes(object, "reported", stats.reported);
	ret |= machine_info_set_bytes(object, "free", stats.free);
	ret |= machine_info_set_bytes(object, "total", stats.total);
	ret |= machine_info_set_bytes(object, "available", stats.available);
	ret |= machine_info_set_bytes(object, "caches", stats.caches);
	ret |= machine_info_set_bytes(object, "major_faults", stats.major_faults);
	ret |= machine_info_set_bytes(object, "minor_faults", stats.minor_faults);
	ret |= machine_info_set_bytes(object, "swap_in", stats.swap_in);
	ret |= machine_info_set_bytes(object, "swap_out", stats.swap_out);
	return ret;
}

int machine_info(struct machine *machine, json_t *info, struct err *err)
{
	const struct host_devices *host = machine_host_devices(machine);
	json_t *devices = json_array();
	int ret = json_object_set_new(info, "devices", devices);

	for (size_t i = 0; i < machine_virtio_count(machine) && ret == 0; i++)
		ret = machine_info_add_device(machine, i, devices);
	for (size_t i = 0; i < host_devices_count(host) && ret == 0; i++)
		ret = machine_info_add_host_device(host, i, devices);
	if (ret == 0 && machine_balloon(machine))
		ret = machine_info_add_balloon(machine_balloon(machine), info);
	return ret ? err_sys(err, -ENOMEM, "info") : 0;
}
