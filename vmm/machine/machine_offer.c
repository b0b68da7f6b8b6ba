/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See machine_offer.h. The text is an object:
 *
 *	{"version": 1, "program": "mvmm 0.1",
 *	 "config": what `mvmm run --config` reads,
 *	 "memory": [{"gpa": 0, "size": 536870912}],
 *	 "cpu": what guest_cpu_write gives, "tsc_khz": 2596120,
 *	 "hotplug": bit d: PCI device d can come and go,
 *	 "devices": [{"id": "disk0", "kind": "disk", "slot": 1, "features": 4294967296, "size": 1073741824,
 *		      "copy": bytes that are not holes, if the content is migrated, "block_size": 512, of a disk,
 *		      "transport": "mmio", if it is not on PCI},
 *		     {"id": "vfio0", "kind": "vfio", "slot": 23, "features": 0, "size": 0, "identity": {...}}]}
 */
#include "vmm/machine/machine_offer.h"

#include "core/monotonic.h"
#include "devices/virtio/virtio_layout.h"
#include "vfio/migration.h"
#include "vmm/config/config_json.h"
#include "vmm/machine/disk_copies.h"
#include "vmm/machine/machine_info.h"
#include "vmm/machine/machine_internal.h"
#include "vmm/machine/memory_room.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define OFFER_VERSION 1
#define BLOCK_MAX 65536u
#define LOCK_MS 100 /* longer than an access of the guest that does not wait for the device */

/* ---- writing ---- */

static uint32_t machine_offer_disk_block_size(struct virtio_device *device)
{
	uint8_t size[4];

	device->ops->config_read(device, offsetof(struct virtio_layout_blk, blk_size), size, sizeof(size));
	return get_le32(size);
}

static uint64_t machine_offer_disk_size(struct virtio_device *device)
{
	uint8_t capacity[8] = {0};

	if (device->type != VIRTIO_ID_BLOCK)
		return 0;
	device->ops->config_read(device, 0, capacity, sizeof(capacity));
	return get_le64(capacity) * 512;
}

static int machine_offer_add_virtio(const struct machine *machine, size_t index, enum migration_copy copy,
				    json_t *devices, struct err *err)
{
	const struct timespec until = monotonic_deadline(monotonic_ms() + LOCK_MS);
	struct virtio_device *device = machine_virtio(machine, index);
	json_t *object;

	if (pthread_mutex_clocklock(&device->lock, CLOCK_MONOTONIC, &until))
		return err_set(err, -EBUSY, "%s: the guest waits for it, and it does not answer", device->id);
	object = json_pack("{s:s, s:s, s:i, s:I, s:I}", "id", device->id, "kind", machine_info_kind(device), "slot",
			   (int)machine_virtio_slot(machine, index), "features", (json_int_t)(device->active ? device->features : 0), "size",
			   (json_int_t)machine_offer_disk_size(device));
	pthread_mutex_unlock(&device->lock);
	if (machine->config->transport == TRANSPORT_MMIO)
		json_object_set_new(object, "transport", json_string("mmio"));
	if (disk_copies_wanted(device, copy))
		json_object_set_new(object, "copy", json_integer((json_int_t)disk_copies_allocated(device)));
	if (device->type == VIRTIO_ID_BLOCK)
		json_object_set_new(object, "block_size", json_integer(machine_offer_disk_block_size(device)));
	return json_array_append_new(devices, object) ? err_sys(err, -ENOMEM, "offer") : 0;
}

static int machine_offer_add_host_device(const struct machine *machine, size_t index, json_t *devices, struct err *err)
{
	struct vfio_migration_identity id;
	struct vfio_pci_info info;
	json_t *identity;
	int ret;

	host_devices_info(machine->host_devices, index, &info);
	ret = vfio_migration_identity(info.device, &id, err);
	if (ret < 0)
		return err_prefix(err, ret, "vfio %s", info.id);
	identity = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I}", "vendor", id.vendor, "device", id.device,
			     "subsystem_vendor", id.subsystem_vendor, "subsystem", id.subsystem,
			     "class", (int)id.class_code, "revision", id.revision, "flags", (json_int_t)id.flags,
			     "iommu", (json_int_t)id.iommu);
	return json_array_append_new(devices, json_pack("{s:s, s:s, s:i, s:i, s:i, s:o}", "id", info.id, "kind", "vfio",
							"slot", info.devfn >> 3, "features", 0, "size", 0, "identity",
							identity));
}

static int machine_offer_write_devices(struct machine *machine, enum migration_copy copy, json_t *devices,
				       struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < machine->virtio_count && ret == 0; i++)
		ret = machine_offer_add_virtio(machine, i, copy, devices, err);
	for (size_t i = 0; i < host_devices_count(machine->host_devices) && ret == 0; i++)
		ret = machine_offer_add_host_device(machine, i, devices, err);
	/* -1 is jansson's. */
	return ret == -1 ? err_sys(err, -ENOMEM, "devices") : ret;
}

static json_t *machine_offer_write_memory(const struct machine *machine)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(machine->memory, &count);
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, json_pack("{s:I, s:I}", "gpa", (json_int_t)regions[i].gpa, "size",
						       (json_int_t)regions[i].size));
	return array;
}

/* What the target needs for it: also what is only in the file that it maps. */
static uint64_t machine_offer_used(const struct machine *machine)
{
	int fd = ram_file(machine->ram);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return memory_used("");
	return memory_own("") + (uint64_t)st.st_blocks * 512;
}

int machine_offer(struct machine *machine, enum migration_copy copy, char **ret, struct err *err)
{
	json_t *root, *config = NULL, *cpu = NULL, *devices = json_array();
	int code = machine_offer_write_devices(machine, copy, devices, err);

	code = code ?: config_json_write(&machine_options, machine->config, &config, err);
	code = code ?: guest_cpu_write(machine->guest_cpu, &cpu, err);
	if (code) {
		json_decref(config);
		json_decref(devices);
		return code;
	}
	root = json_pack("{s:i, s:s, s:o, s:o, s:I, s:o, s:I, s:I, s:o, s:b}", "version", OFFER_VERSION, "program",
			 "mvmm " MVMM_VERSION, "config", config, "memory", machine_offer_write_memory(machine),
			 "used", (json_int_t)machine_offer_used(machine), "cpu", cpu,
			 "tsc_khz", (json_int_t)vcpu_set_tsc_khz(machine->vcpus),
			 "hotplug", (json_int_t)machine->hotplug, "devices", devices, "paused", machine->paused);
	*ret = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return *ret ? 0 : err_sys(err, -ENOMEM, "offer");
}

/* ---- reading ---- */

static int machine_offer_get_uint(const json_t *object, const char *key, uint64_t max, uint64_t *ret, struct err *err)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
		return err_set(err, -EBADMSG, "%s is missing or no number up to %" PRIu64, key, max);
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

static int machine_offer_get_text(const json_t *object, const char *key, char *buf, size_t size, struct err *err)
{
	const json_t *value = json_object_get(object, key);
	size_t len = json_string_length(value);

	if (!len || len >= size || strlen(json_string_value(value)) != len)
		return err_set(err, -EBADMSG, "%s is missing or no text of up to %zu bytes", key, size - 1);
	memcpy(buf, json_string_value(value), len + 1);
	return 0;
}

static int machine_offer_read_regions(struct machine_offer *offer, struct err *err)
{
	const json_t *array = json_object_get(offer->root, "memory");
	size_t count = json_array_size(array);
	int code = 0;

	if (!count || count > OFFER_MAX_REGIONS)
		return err_set(err, -EBADMSG, "%zu regions of memory, not 1 to %u", count, OFFER_MAX_REGIONS);
	for (size_t i = 0; i < count && code == 0; i++) {
		const json_t *region = json_array_get(array, i);

		code = machine_offer_get_uint(region, "gpa", INT64_MAX, &offer->regions[i].gpa, err);
		if (code == 0)
			code = machine_offer_get_uint(region, "size", INT64_MAX, &offer->regions[i].size, err);
	}
	offer->region_count = count;
	return code;
}

static int machine_offer_read_device(const json_t *object, struct machine_offer *offer, struct err *err)
{
	struct offered_device device = {.identity = json_object_get(object, "identity")};
	const json_t *transport = json_object_get(object, "transport");
	uint64_t slot;
	int code = machine_offer_get_text(object, "id", device.id, sizeof(device.id), err);

	code = code ?: machine_name_check(device.id, err) ? -EBADMSG : 0;
	code = code ?: machine_offer_get_text(object, "kind", device.kind, sizeof(device.kind), err);
	code = code ?: machine_offer_get_uint(object, "slot", PCI_DEVICES - 1, &slot, err);
	code = code ?: machine_offer_get_uint(object, "features", INT64_MAX, &device.features, err);
	code = code ?: machine_offer_get_uint(object, "size", INT64_MAX, &device.size, err);
	if (code)
		return code;
	device.devfn = PCI_DEVFN(slot, 0);
	device.mmio = transport;
	if (transport && (!json_is_string(transport) || strcmp(json_string_value(transport), "mmio") != 0))
		return err_set(err, -EBADMSG, "%s: an unknown transport", device.id);
	device.copied = json_object_get(object, "copy");
	if (json_object_get(object, "block_size") &&
	    (machine_offer_get_uint(object, "block_size", BLOCK_MAX, &device.block_size, err) ||
	     !is_power_of_two(device.block_size) || device.block_size < 512))
		return err_set(err, -EBADMSG, "%s: no disk has such sectors", device.id);
	if (device.copied && (machine_offer_get_uint(object, "copy", INT64_MAX, &device.allocated, err) ||
			      !device.block_size || device.size % 512 || strcmp(device.kind, "disk") != 0))
		return err_set(err, -EBADMSG, "%s: it cannot be copied", device.id);
	for (size_t i = 0; i < offer->device_count; i++)
		if ((offer->devices[i].devfn == device.devfn && offer->devices[i].mmio == device.mmio) ||
		    strcmp(offer->devices[i].id, device.id) == 0)
			return err_set(err, -EBADMSG, "%s: the id or the slot is used twice", device.id);
	offer->devices[offer->device_count++] = device;
	return 0;
}

static int machine_offer_read_devices(struct machine_offer *offer, struct err *err)
{
	const json_t *array = json_object_get(offer->root, "devices");
	int code = 0;

	if (!json_is_array(array) || json_array_size(array) > PCI_DEVICES)
		return err_set(err, -EBADMSG, "devices are missing or more than %u", PCI_DEVICES);
	for (size_t i = 0; i < json_array_size(array) && code == 0; i++) {
		code = machine_offer_read_device(json_array_get(array, i), offer, err);
		if (code)
			err_prefix(err, code, "devices[%zu]", i);
	}
	return code;
}

static int machine_offer_read_offer(struct machine_offer *offer, struct err *err)
{
	uint64_t version, tsc_khz, hotplug;
	int code = machine_offer_get_uint(offer->root, "version", INT64_MAX, &version, err);

	if (code == 0 && version != OFFER_VERSION)
		return err_set(err, -ENOTSUP, "version %" PRIu64 ", this program knows %u", version, OFFER_VERSION);
	code = code ?: machine_offer_get_uint(offer->root, "tsc_khz", INT32_MAX, &tsc_khz, err);
	code = code ?: machine_offer_get_uint(offer->root, "hotplug", UINT32_MAX, &hotplug, err);
	code = code ?: machine_offer_read_regions(offer, err);
	if (code == 0 && json_object_get(offer->root, "used"))
		code = machine_offer_get_uint(offer->root, "used", INT64_MAX, &offer->used, err);
	code = code ?: machine_offer_read_devices(offer, err);
	if (code)
		return code;
	offer->tsc_khz = (unsigned int)tsc_khz;
	offer->hotplug = (uint32_t)hotplug;
	offer->config = json_object_get(offer->root, "config");
	offer->cpu = json_object_get(offer->root, "cpu");
	if (!json_is_object(offer->config) || !json_is_object(offer->cpu))
		return err_set(err, -EBADMSG, "config or cpu is missing");
	return 0;
}

int machine_offer_read(json_t *root, struct machine_offer **ret, struct err *err)
{
	struct machine_offer *offer = calloc(1, sizeof(*offer));
	int code;

	if (!offer) {
		json_decref(root);
		return err_sys(err, -ENOMEM, "offer");
	}
	offer->root = root;
	code = machine_offer_read_offer(offer, err);
	if (code) {
		machine_offer_destroy(offer);
		return err_prefix(err, code, "the offered machine");
	}
	*ret = offer;
	return 0;
}

void machine_offer_destroy(struct machine_offer *offer)
{
	if (!offer)
		return;
	json_decref(offer->root);
	free(offer);
}

bool machine_offer_paused(const struct machine_offer *offer)
{
	return json_is_true(json_object_get(offer->root, "paused"));
}

/* In an offer, all devices have ids. */
static int machine_offer_check_id(const char *id, struct err *err)
{
	return id ? machine_name_check(id, err) : err_set(err, -EBADMSG, "a device without an id");
}

static int machine_offer_check_ids(const struct machine_config *config, struct err *err)
{
	int code = config->name ? machine_name_check(config->name, err) : err_set(err, -EBADMSG, "no name");

	for (size_t i = 0; i < config->disk_count && code == 0; i++)
		code = machine_offer_check_id(config->disks[i].id, err);
	for (size_t i = 0; i < config->net_count && code == 0; i++)
		code = machine_offer_check_id(config->nets[i].id, err);
	for (size_t i = 0; i < config->vfio_count && code == 0; i++)
		code = machine_offer_check_id(config->vfios[i].id, err);
	return code;
}

/* A peer's descriptor numbers must not be used, nor closed with the configuration. */
static bool machine_offer_drop_descriptors(struct machine_config *config)
{
	bool any = config->iommufd >= 0;

	config->iommufd = -1;
	for (size_t i = 0; i < config->vfio_count; i++) {
		any |= config->vfios[i].fd >= 0;
		config->vfios[i].fd = -1;
	}
	for (size_t i = 0; i < config->net_count; i++) {
		any |= config->nets[i].fd >= 0;
		config->nets[i].fd = -1;
	}
	return any;
}

/* A program that could hide neither showed both, if KVM offered them. */
static void machine_offer_read_choices(const struct machine_offer *offer, struct machine_config *config)
{
	if (!json_object_get(json_object_get(offer->config, "cpu"), "nested"))
		guest_cpu_choices(offer->cpu, &config->cpu);
}

int machine_offer_config(const struct machine_offer *offer, struct machine_config *config, struct err *err)
{
	int code = config_json_read(&machine_options, config, offer->config, err);

	if (machine_offer_drop_descriptors(config) && !code)
		code = err_set(err, -EBADMSG, "it has a descriptor");
	code = code ?: machine_offer_check_ids(config, err);
	machine_offer_read_choices(offer, config);
	return code ? err_prefix(err, code == -EINVAL ? -EBADMSG : code, "the offered configuration") : 0;
}

/* ---- comparing with the machine ---- */

static const struct offered_device *machine_offer_find_device(const struct machine_offer *offer, const char *id)
{
	for (size_t i = 0; i < offer->device_count; i++)
		if (strcmp(offer->devices[i].id, id) == 0)
			return &offer->devices[i];
	return NULL;
}

int machine_offer_devfn(const struct machine_offer *offer, const char *id, struct err *err)
{
	const struct offered_device *device = machine_offer_find_device(offer, id);

	return device ? device->devfn : err_set(err, -ENOENT, "%s: the offered machine has no such device", id);
}

/* Host devices pin all memory, but for mediated ones, whose names are UUIDs. */
static bool machine_offer_is_pinned(const struct machine_config *config)
{
	uint8_t uuid[16];

	for (size_t i = 0; i < config->vfio_count; i++) {
		const char *device = config->vfios[i].device ?: "", *slash = strrchr(device, '/');

		if (vfio_uuid_parse(slash ? slash + 1 : device, uuid) < 0)
			return true;
	}
	return false;
}

int machine_offer_check_room(const struct machine_offer *offer, const struct machine_config *config, uint64_t room,
			     struct err *err)
{
	uint64_t size = config->memory.size;
	bool whole = machine_offer_is_pinned(config) || config->memory.prefault;
	uint64_t needed = whole ? size : MIN(size, offer->used);

	if (config->memory.hugepages != HUGEPAGES_NONE || needed <= room)
		return 0;
	return err_set(err, -ENOMEM, "the guest needs %" PRIu64 " MiB of memory now, and this host has %" PRIu64
		       " MiB left for it", needed >> 20, room >> 20);
}

bool machine_offer_copies(const struct machine_offer *offer, const char *id)
{
	const struct offered_device *device = machine_offer_find_device(offer, id);

	return device && device->copied;
}

unsigned int machine_offer_block_size(const struct machine_offer *offer, const char *id)
{
	const struct offered_device *device = machine_offer_find_device(offer, id);

	return device ? (unsigned int)device->block_size : 0;
}

int machine_offer_check_memory(const struct machine_offer *offer, const struct guest_memory *memory, struct err *err)
{
	size_t count;
	const struct guest_region *regions = guest_memory_regions(memory, &count);

	for (size_t i = 0; i < MAX(count, offer->region_count); i++)
		if (i >= MIN(count, offer->region_count) || regions[i].gpa != offer->regions[i].gpa ||
		    regions[i].size != offer->regions[i].size)
			return err_set(err, -EINVAL, "the guest's memory has another layout than this host's");
	return 0;
}

static int machine_offer_check_features(const struct virtio_device *device, const struct offered_device *offered,
					struct err *err)
{
	uint64_t missing = offered->features & ~device->offered;
	char text[160];
	size_t used = 0;

	for (unsigned int bit = 0; bit < 64 && used < sizeof(text); bit++)
		if (missing >> bit & 1)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u", used ? ", " : "", bit);
	return missing ? err_set(err, -EINVAL,
				 "%s: the guest uses features that this %s does not have: virtio feature bits %s",
				 device->id, offered->kind, text) : 0;
}

static int machine_offer_read_identity(const json_t *object, struct vfio_migration_identity *ret, struct err *err)
{
	uint64_t vendor, device, subsystem_vendor, subsystem, class_code, revision, flags, iommu;
	int code = machine_offer_get_uint(object, "vendor", UINT16_MAX, &vendor, err);

	code = code ?: machine_offer_get_uint(object, "device", UINT16_MAX, &device, err);
	code = code ?: machine_offer_get_uint(object, "subsystem_vendor", UINT16_MAX, &subsystem_vendor, err);
	code = code ?: machine_offer_get_uint(object, "subsystem", UINT16_MAX, &subsystem, err);
	code = code ?: machine_offer_get_uint(object, "class", 0xffffff, &class_code, err);
	code = code ?: machine_offer_get_uint(object, "revision", UINT8_MAX, &revision, err);
	code = code ?: machine_offer_get_uint(object, "flags", UINT32_MAX, &flags, err);
	code = code ?: machine_offer_get_uint(object, "iommu", UINT32_MAX, &iommu, err);
	if (code)
		return code;
	*ret = (struct vfio_migration_identity){
		.vendor = (uint16_t)vendor, .device = (uint16_t)device, .subsystem_vendor = (uint16_t)subsystem_vendor,
		.subsystem = (uint16_t)subsystem, .class_code = (uint32_t)class_code, .revision = (uint8_t)revision,
		.flags = (uint32_t)flags, .iommu = (uint32_t)iommu,
	};
	return 0;
}

static int machine_offer_check_host_device(const struct machine_offer *offer, const struct vfio_pci_info *info,
					   struct err *err)
{
	const struct offered_device *offered = machine_offer_find_device(offer, info->id);
	struct vfio_migration_identity there, here;
	int code;

	if (!offered || strcmp(offered->kind, "vfio") != 0 || offered->devfn != info->devfn || offered->mmio)
		return err_set(err, -EINVAL, "vfio %s: not in the slot that it was offered in", info->id);
	code = machine_offer_read_identity(offered->identity, &there, err);
	code = code ?: vfio_migration_identity(info->device, &here, err);
	code = code ?: vfio_migration_compare(&there, &here, err);
	return code ? err_prefix(err, code, "vfio %s", info->id) : 0;
}

static int machine_offer_check_virtio(const struct machine_offer *offer, struct virtio_device *device,
				      unsigned int slot, bool mmio, struct err *err)
{
	const struct offered_device *offered = machine_offer_find_device(offer, device->id);
	uint64_t size = machine_offer_disk_size(device);

	if (!offered || offered->devfn != PCI_DEVFN(slot, 0) || offered->mmio != mmio)
		return err_set(err, -EINVAL, "%s: not in the slot that it was offered in", device->id);
	if (strcmp(offered->kind, machine_info_kind(device)) != 0)
		return err_set(err, -EINVAL, "%s: a %s was offered, this is a %s", device->id, offered->kind,
			       machine_info_kind(device));
	if (offered->size != size)
		return err_set(err, -EINVAL, "%s: the disk has %" PRIu64 " bytes where the guest runs, %" PRIu64
			       " here; is it the same one?", device->id, offered->size, size);
	if (offered->block_size && offered->block_size != machine_offer_disk_block_size(device))
		return err_set(err, -EINVAL,
			       "%s: the disk has blocks of %" PRIu64 " bytes where the guest runs, %u here", device->id,
			       offered->block_size, machine_offer_disk_block_size(device));
	return machine_offer_check_features(device, offered, err);
}

int machine_offer_check(const struct machine_offer *offer, struct machine *machine, struct err *err)
{
	size_t count = machine->virtio_count + host_devices_count(machine->host_devices);
	int code = machine_offer_check_memory(offer, machine->memory, err);

	for (size_t i = 0; i < machine->virtio_count && code == 0; i++) {
		unsigned int slot = machine_virtio_slot(machine, i);

		code = machine_offer_check_virtio(offer, machine_virtio(machine, i), slot,
						  machine->config->transport == TRANSPORT_MMIO, err);
	}
	for (size_t i = 0; i < host_devices_count(machine->host_devices) && code == 0; i++) {
		struct vfio_pci_info info;

		host_devices_info(machine->host_devices, i, &info);
		code = machine_offer_check_host_device(offer, &info, err);
	}
	if (code == 0 && count != offer->device_count)
		code = err_set(err, -EINVAL, "%zu devices were offered, this machine has %zu", offer->device_count,
			       count);
	return code;
}
