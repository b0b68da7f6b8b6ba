/* SPDX-License-Identifier: Apache-2.0 */
/* See host_devices.h: how devices come, with the machine or while it runs, and the machine's end. */
#include "vmm/machine/host_devices_internal.h"

#include "vfio/pci_reset.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- from sysfs to the bus ---- */

enum vfio_want host_devices_want(enum vfio_backend backend)
{
	static const enum vfio_want wants[] = {
		[VFIO_BACKEND_AUTO] = VFIO_WANT_AUTO, [VFIO_BACKEND_IOMMUFD] = VFIO_WANT_IOMMUFD,
		[VFIO_BACKEND_LEGACY] = VFIO_WANT_LEGACY, [VFIO_BACKEND_NOIOMMU] = VFIO_WANT_NOIOMMU,
	};

	return wants[backend];
}

static int host_devices_add_open_device(struct host_devices *devices, const struct vfio_config *config,
					struct vfio_given *given, struct vfio_device **ret, struct err *err)
{
	_cleanup_(fd_close) int fd = -1;
	struct vfio_device_options options = {.device = config->device, .given = given, .no_p2p = !config->p2p,
					      .backend = host_devices_want(config->backend)};
	uint8_t token[16];

	if (config->token) {
		if (vfio_uuid_parse(config->token, token) < 0)
			return err_set(err, -EINVAL, "--vfio %s,token=%.60s: not a UUID", config->id, config->token);
		options.vf_token = token;
	}
	/* The configuration keeps its descriptor for the next machine, after a reboot. */
	if (config->fd >= 0) {
		fd = fcntl(config->fd, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return err_sys(err, -errno, "--vfio fd=%d", config->fd);
		options.fd = &fd;
	}
	return vfio_device_open(devices->space, &options, ret, err);
}

static int host_devices_add_devfn_for(const struct host_devices *devices, const char *id, struct err *err)
{
	if (devices->machine.slot_for)
		return devices->machine.slot_for(devices->machine.opaque, id, err);
	return slots_find_free(devices->machine.slots, host_device_ops.kind, id, err);
}

static int host_devices_add_put(struct host_devices *devices, const struct vfio_config *config, int devfn,
				struct vfio_device **device, struct vfio_pci **ret, struct err *err)
{
	const struct vfio_pci_machine machine = {
		.bus = devices->machine.pci, .msi = devices->machine.msi, .loop = devices->machine.loop,
		.log = devices->machine.log, .map = &devices->machine.ops->map, .map_opaque = devices->machine.opaque,
		.wanted = host_devices_remove_on_wanted, .wanted_opaque = devices, .space_lock = &devices->space_lock,
	};
	struct vfio_pci_options options = {
		.id = config->id, .rom = config->rom == VFIO_ROM_ON,
		.rom_file = config->rom == VFIO_ROM_FILE ? config->rom_file : NULL, .devfn = devfn,
	};

	if (!machine_files_passed(devices->machine.files, config->id, &options.rom_fd))
		options.rom_fd = NULL;
	return vfio_pci_create(device, &options, &machine, ret, err);
}

static struct host_device *host_devices_add_new(struct host_devices *devices, const char *id)
{
	struct host_device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	device->devices = devices;
	device->id = strdup(id);
	if (device->id)
		return device;
	free(device);
	return NULL;
}

static int host_devices_add_fill_slot(struct host_device *device, const struct vfio_config *config, int devfn,
				      struct vfio_device **open, struct err *err)
{
	struct slots *slots = device->devices->machine.slots;
	int code = slots_add(slots, &host_device_ops, device, config->id, (uint8_t)devfn, &device->slot, err);

	code = code ?: host_devices_add_put(device->devices, config, devfn, open, &device->pci, err);
	if (code < 0)
		slots_forget(device->slot);
	return code;
}

/* Puts an open device on the bus, in its slot. Takes it over on success. */
static int host_devices_add_plug(struct host_devices *devices, const struct vfio_config *config, int devfn,
				 struct vfio_device **open, struct host_device **ret, struct err *err)
{
	struct host_device *device = host_devices_add_new(devices, config->id);
	int code;

	if (!device)
		return err_sys(err, -ENOMEM, "--vfio %s", config->id);
	code = host_devices_add_fill_slot(device, config, devfn, open, err);
	if (code < 0) {
		host_devices_remove_free(device);
		return code;
	}
	device->next = devices->first;
	devices->first = device;
	*ret = device;
	return 0;
}

/* The space is made when the first device needs it: a machine without one pays nothing. */
static int host_devices_add_need_space(struct host_devices *devices, struct err *err)
{
	const struct vfio_hypervisor hypervisor = {.add = devices->machine.ops->add_file,
						   .remove = devices->machine.ops->remove_file,
						   .need_memory = devices->machine.ops->need_memory,
						   .opaque = devices->machine.opaque};
	_cleanup_(fd_close) int fd = devices->iommufd < 0 ? -1 : fcntl(devices->iommufd, F_DUPFD_CLOEXEC, 3);
	struct vfio_space_options options = {
		.sys = devices->machine.sys, .log = devices->machine.log, .memory = devices->machine.memory,
		.dirty = devices->machine.dirty, .hypervisor = &hypervisor, .lock = &devices->space_lock,
		.cancel_fd = &devices->cancel_fd,
	};

	if (devices->space)
		return 0;
	if (devices->iommufd >= 0) {
		if (fd < 0)
			return err_sys(err, -errno, "--iommufd fd=%d", devices->iommufd);
		options.iommufd = &fd;
	}
	return vfio_space_create(&options, &devices->space, err);
}

/* ---- add while the guest runs ---- */

/* Opens the device, and resets it, perhaps with its bus. */
static int host_devices_add_open(void *opaque, struct err *err)
{
	struct arrival *arrival = opaque;
	int code = host_devices_add_open_device(arrival->devices, arrival->config, arrival->given, &arrival->device, err);

	if (code == 0)
		vfio_pci_reset(arrival->devices->space);
	return code;
}

static void host_devices_add_on_progress(void *opaque, uint32_t events)
{
	struct arrival *arrival = opaque;
	struct vfio_progress progress = vfio_space_progress(arrival->devices->space);

	if (progress.what)
		arrival->reply.progress(arrival->reply.opaque, &progress);
}

static void host_devices_add_free_arrival(struct arrival *arrival)
{
	event_source_remove(arrival->timer);
	vfio_device_close(arrival->device);
	free(arrival);
}

/* Frees it and calls done. */
static void host_devices_add_end_arrival(struct arrival *arrival)
{
	struct host_devices_reply reply = arrival->reply;
	struct err err = arrival->err;
	int code = arrival->code;

	arrival->devices->arrival = NULL;
	host_devices_add_free_arrival(arrival);
	reply.done(reply.opaque, code, code ? &err : NULL);
}

static int host_devices_add_close(void *opaque, struct err *err)
{
	struct arrival *arrival = opaque;

	vfio_device_close(take_ptr(arrival->device));
	return 0;
}

static void host_devices_add_closed(void *opaque, int code, const struct err *err)
{
	host_devices_add_end_arrival(opaque);
}

/* Has a worker close a device that cannot be put on the bus; false if there is none, or no thread for it. */
static bool host_devices_add_begin_close(struct arrival *arrival)
{
	const struct slots_job job = {SLOTS_ADDING, arrival->config->id, host_devices_add_close,
				      host_devices_add_closed, arrival};
	struct err why;

	return arrival->device && slots_begin(arrival->devices->machine.slots, &job, &why) == 0;
}

/* Puts the device that the worker has opened on the bus, and notifies the guest. */
static int host_devices_add_welcome(struct arrival *arrival, struct err *err)
{
	struct host_devices *devices = arrival->devices;
	struct host_device *device;
	int code = host_devices_add_plug(devices, arrival->config, arrival->devfn, &arrival->device, &device, err);

	if (code == 0)
		slots_announce(device->slot);
	return code;
}

static void host_devices_add_opened(void *opaque, int code, const struct err *err)
{
	struct arrival *arrival = opaque;

	arrival->code = code;
	arrival->err = *err;
	if (arrival->devices->ending)
		arrival->code = err_set(&arrival->err, -ECANCELED, "%s: the machine ended, or the guest rebooted, before it "
					"was there", arrival->config->id);
	else if (!code)
		arrival->code = host_devices_add_welcome(arrival, &arrival->err);
	if (!arrival->code || !host_devices_add_begin_close(arrival))
		host_devices_add_end_arrival(arrival);
}

static int host_devices_add_start_arrival(struct arrival *arrival, struct err *err)
{
	const struct slots_job job = {SLOTS_ADDING, arrival->config->id, host_devices_add_open, host_devices_add_opened,
				      arrival};
	struct host_devices *devices = arrival->devices;
	int code = event_loop_timer(devices->machine.loop, host_devices_add_on_progress, arrival, &arrival->timer, err);

	if (code < 0)
		return code;
	event_timer_set(arrival->timer, 1000000000, 1000000000);
	return slots_begin(devices->machine.slots, &job, err);
}

int host_devices_add(struct host_devices *devices, const struct vfio_config *config, struct vfio_given *given,
		     const struct host_devices_reply *reply, struct err *err)
{
	struct slots *slots = devices->machine.slots;
	struct arrival *arrival;
	int code, devfn;

	if (slots_find(slots, &host_device_ops, config->id))
		return err_set(err, -EEXIST, "%s: a device with this id exists; use another id=", config->id);
	code = slots_check_free(slots, err);
	if (code < 0)
		return err_prefix(err, code, "%s", config->id);
	code = host_devices_add_need_space(devices, err);
	if (code < 0)
		return code;
	devfn = host_devices_add_devfn_for(devices, config->id, err);
	if (devfn < 0)
		return devfn;
	arrival = calloc(1, sizeof(*arrival));
	if (!arrival)
		return err_sys(err, -ENOMEM, "--vfio %s", config->id);
	*arrival = (struct arrival){.devices = devices, .config = config, .given = given, .devfn = devfn, .reply = *reply};
	code = host_devices_add_start_arrival(arrival, err);
	if (code < 0)
		host_devices_add_free_arrival(arrival);
	else
		devices->arrival = arrival;
	return code;
}

/* ---- create and destroy ---- */

/* One device of the configuration. */
static int host_devices_add_start_one(struct host_devices *devices, const struct vfio_config *config, struct err *err)
{
	int devfn = host_devices_add_devfn_for(devices, config->id, err);
	struct vfio_device *open = NULL;
	struct host_device *device;
	int code = devfn < 0 ? devfn : host_devices_add_open_device(devices, config, NULL, &open, err);

	code = code ?: host_devices_add_plug(devices, config, devfn, &open, &device, err);
	vfio_device_close(open);
	return code;
}

static int host_devices_add_start(struct host_devices *devices, const struct machine_config *config, struct err *err)
{
	int code;

	devices->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (devices->cancel_fd < 0)
		return err_sys(err, -errno, "eventfd");
	code = config->vfio_count ? host_devices_add_need_space(devices, err) : 0;
	for (size_t i = 0; i < config->vfio_count && code == 0; i++)
		code = host_devices_add_start_one(devices, &config->vfios[i], err);
	if (code < 0)
		return code;
	devices->machine.slot_for = NULL;
	if (devices->space)
		vfio_pci_reset(devices->space);
	return 0;
}

/* Recursive: dirty sources take this lock, also when they are stopped while a device is closed under it. */
static void host_devices_add_init_recursive(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

int host_devices_create(const struct machine_config *config, const struct host_devices_machine *machine,
			struct host_devices **ret, struct err *err)
{
	struct host_devices *devices = calloc(1, sizeof(*devices));
	int code;

	if (!devices)
		return err_sys(err, -ENOMEM, "host devices");
	devices->machine = *machine;
	devices->cancel_fd = -1;
	devices->iommufd = config->iommufd;
	host_devices_add_init_recursive(&devices->space_lock);
	code = host_devices_add_start(devices, config, err);
	if (code < 0) {
		host_devices_destroy(devices);
		return code;
	}
	*ret = devices;
	return 0;
}

void host_devices_destroy(struct host_devices *devices)
{
	if (!devices)
		return;
	devices->ending = true;
	if (devices->arrival)
		eventfd_kick(devices->cancel_fd);
	slots_finish(devices->machine.slots);
	host_devices_remove_all(devices);
	vfio_space_destroy(devices->space);
	fd_close(&devices->cancel_fd);
	pthread_mutex_destroy(&devices->space_lock);
	free(devices);
}

size_t host_devices_count(const struct host_devices *devices)
{
	size_t count = 0;

	for (const struct host_device *device = devices ? devices->first : NULL; device; device = device->next)
		count++;
	return count;
}

static const struct host_device *host_devices_add_at(const struct host_devices *devices, size_t index)
{
	const struct host_device *device = devices->first;

	while (index--)
		device = device->next;
	return device;
}

struct vfio_pci *host_devices_pci(const struct host_devices *devices, size_t index)
{
	return host_devices_add_at(devices, index)->pci;
}

void host_devices_info(const struct host_devices *devices, size_t index, struct vfio_pci_info *info)
{
	vfio_pci_get_info(host_devices_add_at(devices, index)->pci, info);
}

void host_devices_cut_off(struct host_devices *devices, size_t index)
{
	vfio_pci_cut_off(host_devices_add_at(devices, index)->pci);
}

int host_devices_release(void *opaque, uint64_t gpa, uint64_t len)
{
	struct host_devices *devices = opaque;
	bool mapped;

	pthread_mutex_lock(&devices->space_lock);
	mapped = devices->arrival || devices->leaving || (devices->space && vfio_space_is_mapped(devices->space));
	pthread_mutex_unlock(&devices->space_lock);
	if (mapped && !devices->balloon_logged) {
		log_info(devices->machine.log, "balloon: pages stay with the guest: host devices have its memory mapped");
		devices->balloon_logged = true;
	}
	return mapped ? -EBUSY : 0;
}
