/* SPDX-License-Identifier: Apache-2.0 */
/* See host_devices.h: how devices come, with the machine or while it runs, and the machine's end. */
#include "vmm/machine/host_devices_internal.h"

#include "vfio/pci_reset.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- from sysfs to the bus ---- */

static int host_devices_add_open_device(struct host_devices *devices, const struct vfio_config *config,
					struct vfio_device **ret, struct err *err)
{
	static const enum vfio_want wants[] = {
		[VFIO_BACKEND_AUTO] = VFIO_WANT_AUTO, [VFIO_BACKEND_IOMMUFD] = VFIO_WANT_IOMMUFD,
		[VFIO_BACKEND_LEGACY] = VFIO_WANT_LEGACY, [VFIO_BACKEND_NOIOMMU] = VFIO_WANT_NOIOMMU,
	};
	_cleanup_(fd_close) int fd = -1;
	struct vfio_device_options options = {.device = config->device, .backend = wants[config->backend],
					      .no_p2p = !config->p2p};
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

/* The highest free slot, or -1: emulated devices, which stay, use the bus from below. */
static int host_devices_add_free_devfn(const struct host_devices *devices)
{
	for (unsigned int device = PCI_DEVICES; device-- > 0;)
		if (devices->machine.slots & 1u << device &&
		    !pci_bus_function(devices->machine.pci, PCI_DEVFN(device, 0)))
			return PCI_DEVFN(device, 0);
	return -1;
}

static int host_devices_add_devfn_for(const struct host_devices *devices, const char *id, struct err *err)
{
	int devfn;

	if (devices->machine.slot_for)
		return devices->machine.slot_for(devices->machine.opaque, id, err);
	devfn = host_devices_add_free_devfn(devices);
	if (devfn < 0)
		return err_set(err, -ENOSPC, "--vfio %s: no slot of the PCI bus is free; remove another device", id);
	return devfn;
}

/* Puts an open device on the bus. Takes it over on success. */
static int host_devices_add_fill_slot(struct slot *slot, const struct vfio_config *config, int devfn,
				      struct vfio_device **device, struct err *err)
{
	struct host_devices *devices = slot->devices;
	const struct vfio_pci_machine machine = {
		.bus = devices->machine.pci, .msi = devices->machine.msi, .loop = devices->machine.loop,
		.log = devices->machine.log, .map = &devices->machine.ops->map, .map_opaque = devices->machine.opaque,
		.wanted = host_devices_remove_on_wanted, .wanted_opaque = devices, .space_lock = &devices->space_lock,
	};
	const struct vfio_pci_options options = {
		.id = config->id, .rom = config->rom == VFIO_ROM_ON,
		.rom_file = config->rom == VFIO_ROM_FILE ? config->rom_file : NULL, .devfn = devfn,
	};

	return vfio_pci_create(device, &options, &machine, &slot->pci, err);
}

static struct slot *host_devices_add_new_slot(struct host_devices *devices, const char *id, int devfn)
{
	struct slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		return NULL;
	slot->devices = devices;
	slot->device = (unsigned int)devfn >> 3;
	slot->id = strdup(id);
	host_devices_remove_forget(devices, slot->device);
	if (!slot->id) {
		free(slot);
		return NULL;
	}
	return slot;
}

/* As host_devices_add_fill_slot, with a slot for it. */
static int host_devices_add_plug(struct host_devices *devices, const struct vfio_config *config, int devfn,
				 struct vfio_device **device, struct slot **ret, struct err *err)
{
	struct slot *slot = host_devices_add_new_slot(devices, config->id, devfn);
	int code;

	if (!slot)
		return err_sys(err, -ENOMEM, "--vfio %s", config->id);
	code = host_devices_add_fill_slot(slot, config, devfn, device, err);
	if (code < 0) {
		host_devices_remove_free(slot);
		return code;
	}
	slot->next = devices->slots;
	devices->slots = slot;
	*ret = slot;
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
static int host_devices_add_arrival_work(void *opaque, unsigned int index, struct err *err)
{
	struct arrival *arrival = opaque;
	int code = host_devices_add_open_device(arrival->devices, arrival->config, &arrival->device, err);

	if (code == 0)
		vfio_pci_reset(arrival->devices->space);
	eventfd_kick(arrival->devices->worked_fd);
	return code;
}

static void host_devices_add_on_progress(void *opaque, uint32_t events)
{
	struct arrival *arrival = opaque;
	struct vfio_progress progress = vfio_space_progress(arrival->devices->space);

	if (progress.what)
		arrival->reply.progress(arrival->reply.opaque, &progress);
}

static int host_devices_add_closing_work(void *opaque, unsigned int index, struct err *err)
{
	struct arrival *arrival = opaque;

	vfio_device_close(take_ptr(arrival->device));
	eventfd_kick(arrival->devices->worked_fd);
	return 0;
}

/* Has the worker close a device that cannot be put on the bus; false if there is none, or no thread for it. */
static bool host_devices_add_close(struct arrival *arrival)
{
	static const struct crew_ops ops = {.work = host_devices_add_closing_work};

	if (!arrival->device)
		return false;
	crew_destroy(take_ptr(arrival->crew));
	return crew_create(&ops, arrival, 1, THREAD_DEVICE, "drop dev", &arrival->crew, NULL) == 0;
}

/* Puts the device that the worker has opened on the bus, and notifies the guest. */
static int host_devices_add_welcome(struct arrival *arrival, struct err *err)
{
	struct host_devices *devices = arrival->devices;
	struct slot *slot;
	int code = host_devices_add_plug(devices, arrival->config, arrival->devfn, &arrival->device, &slot, err);

	if (code < 0)
		return code;
	power_pci_added(devices->machine.power, slot->device);
	return 0;
}

static void host_devices_add_free_arrival(struct arrival *arrival)
{
	event_source_remove(arrival->timer);
	crew_destroy(arrival->crew);
	vfio_device_close(arrival->device);
	free(arrival);
}

/* Frees it and calls done. Devices that the guest has ejected meanwhile are removed by the next turn of the loop. */
static void host_devices_add_end_arrival(struct host_devices *devices)
{
	struct arrival *arrival = take_ptr(devices->arrival);
	struct host_devices_reply reply = arrival->reply;
	struct err err = arrival->err;
	int code = arrival->code;

	host_devices_add_free_arrival(arrival);
	eventfd_kick(devices->eject_fd);
	reply.done(reply.opaque, code, code ? &err : NULL);
}

/* The worker has opened the device, or closed it again. */
static void host_devices_add_go_on(struct host_devices *devices)
{
	struct arrival *arrival = devices->arrival;

	crew_wait(arrival->crew, -1, -1);
	if (!arrival->code)
		arrival->code = crew_result(arrival->crew, &arrival->err) ?:
				host_devices_add_welcome(arrival, &arrival->err);
	if (!arrival->code || !host_devices_add_close(arrival))
		host_devices_add_end_arrival(devices);
}

/* The machine ends. */
static void host_devices_add_cancel(struct host_devices *devices)
{
	struct arrival *arrival = devices->arrival;

	eventfd_kick(devices->cancel_fd);
	crew_wait(arrival->crew, -1, -1);
	if (!arrival->code)
		arrival->code = err_set(&arrival->err, -ECANCELED, "%s: the machine ended, or the guest rebooted, before "
					"it was there", arrival->config->id);
	host_devices_add_end_arrival(devices);
}

static void host_devices_add_on_worked(void *opaque, uint32_t events)
{
	struct host_devices *devices = opaque;

	eventfd_drain(devices->worked_fd);
	if (devices->arrival)
		host_devices_add_go_on(devices);
	else if (devices->leaving)
		host_devices_remove_end(devices);
}

static int host_devices_add_start_arrival(struct arrival *arrival, struct err *err)
{
	static const struct crew_ops ops = {.work = host_devices_add_arrival_work};
	int code = event_loop_timer(arrival->devices->machine.loop, host_devices_add_on_progress, arrival,
				    &arrival->timer, err);

	if (code < 0)
		return code;
	event_timer_set(arrival->timer, 1000000000, 1000000000);
	return crew_create(&ops, arrival, 1, THREAD_DEVICE, "add device", &arrival->crew, err);
}

int host_devices_add(struct host_devices *devices, const struct vfio_config *config,
		     const struct host_devices_reply *reply, struct err *err)
{
	struct arrival *arrival;
	int code, devfn;

	if (host_devices_remove_find(devices, config->id))
		return err_set(err, -EEXIST, "%s: a device with this id exists; use another id=", config->id);
	code = host_devices_check_free(devices, err);
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
	*arrival = (struct arrival){.devices = devices, .config = config, .devfn = devfn, .reply = *reply};
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
	struct vfio_device *device = NULL;
	struct slot *slot;
	int code = devfn < 0 ? devfn : host_devices_add_open_device(devices, config, &device, err);

	code = code ?: host_devices_add_plug(devices, config, devfn, &device, &slot, err);
	vfio_device_close(device);
	return code;
}

static int host_devices_add_watch(struct host_devices *devices, event_fn *fn, int *fd, struct event_source **source,
				  struct err *err)
{
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd < 0 ? err_sys(err, -errno, "eventfd") :
			 event_loop_watch(devices->machine.loop, *fd, EPOLLIN, fn, devices, source, err);
}

static int host_devices_add_start(struct host_devices *devices, const struct machine_config *config, struct err *err)
{
	int code = host_devices_add_watch(devices, host_devices_remove_on_eject, &devices->eject_fd,
					  &devices->eject, err);

	if (code == 0)
		code = host_devices_add_watch(devices, host_devices_add_on_worked, &devices->worked_fd,
					      &devices->worked, err);
	devices->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (code == 0 && devices->cancel_fd < 0)
		code = err_sys(err, -errno, "eventfd");
	if (code == 0 && config->vfio_count)
		code = host_devices_add_need_space(devices, err);
	for (size_t i = 0; i < config->vfio_count && code == 0; i++)
		code = host_devices_add_start_one(devices, &config->vfios[i], err);
	if (code < 0)
		return code;
	devices->machine.slot_for = NULL;
	if (devices->space)
		vfio_pci_reset(devices->space);
	power_set_ejected(devices->machine.power, host_devices_remove_ejected, devices);
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
	devices->eject_fd = devices->worked_fd = devices->cancel_fd = -1;
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
	if (devices->arrival)
		host_devices_add_cancel(devices);
	host_devices_remove_all(devices);
	vfio_space_destroy(devices->space);
	event_source_remove(devices->eject);
	event_source_remove(devices->worked);
	fd_close(&devices->eject_fd);
	fd_close(&devices->worked_fd);
	fd_close(&devices->cancel_fd);
	pthread_mutex_destroy(&devices->space_lock);
	free(devices);
}

size_t host_devices_count(const struct host_devices *devices)
{
	size_t count = 0;

	for (const struct slot *slot = devices ? devices->slots : NULL; slot; slot = slot->next)
		count++;
	return count;
}

static const struct slot *host_devices_add_at(const struct host_devices *devices, size_t index)
{
	const struct slot *slot = devices->slots;

	while (index--)
		slot = slot->next;
	return slot;
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
