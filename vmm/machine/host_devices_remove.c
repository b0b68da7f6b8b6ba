/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How host devices leave a machine: the guest is asked for them and ejects them, or they are taken away. Part of
 * host_devices.h.
 */
#include "vmm/machine/host_devices_internal.h"

enum slot_event {
	SLOT_REMOVE,  /* a caller asks */
	SLOT_WANT,    /* the host asks; the kernel repeats that as long as somebody waits */
	SLOT_TIMEOUT, /* of the caller */
	SLOT_EJECT,   /* the guest has ejected the device, asked or not, or it is removed by force */
	SLOT_END,     /* the machine ends: after a reboot, a device whose removal was asked for is not there any more */
	SLOT_EVENTS,
};

/*
 * The state after an event. SLOT_REMOVE asks the guest if it changes the state, SLOT_WANT each time. While a blocker is
 * set, the guest is not asked, SLOT_EJECT is deferred, and callers get -EBUSY.
 */
static const enum slot_state host_devices_remove_steps[SLOT_GONE][SLOT_EVENTS] = {
			 /* REMOVE     WANT         TIMEOUT       EJECT      END */
	[SLOT_PRESENT] = {SLOT_ASKED, SLOT_WANTED, SLOT_PRESENT, SLOT_GONE, SLOT_PRESENT},
	[SLOT_WANTED]  = {SLOT_BOTH,  SLOT_WANTED, SLOT_WANTED,  SLOT_GONE, SLOT_GONE},
	[SLOT_ASKED]   = {SLOT_ASKED, SLOT_BOTH,   SLOT_PRESENT, SLOT_GONE, SLOT_GONE},
	[SLOT_BOTH]    = {SLOT_BOTH,  SLOT_BOTH,   SLOT_WANTED,  SLOT_GONE, SLOT_GONE},
};

static enum slot_state host_devices_remove_next(const struct slot *slot, enum slot_event event)
{
	return host_devices_remove_steps[slot->state][event];
}

void host_devices_remove_free(struct slot *slot)
{
	free(slot->id);
	free(slot);
}

struct slot *host_devices_remove_find(const struct host_devices *devices, const char *id)
{
	struct slot *slot = devices->slots;

	while (slot && strcmp(slot->id, id) != 0)
		slot = slot->next;
	return slot;
}

int host_devices_check_free(const struct host_devices *devices, struct err *err)
{
	if (devices->blocker)
		return err_set(err, -EBUSY, "%s", devices->blocker);
	if (devices->arrival)
		return err_set(err, -EBUSY, "the device %s is being added; try again when it is there",
			       devices->arrival->config->id);
	if (devices->leaving)
		return err_set(err, -EBUSY, "the device %s is being removed; try again when it is gone",
			       devices->leaving->id);
	return 0;
}

static void host_devices_remove_unlink(struct host_devices *devices, struct slot *slot)
{
	struct slot **link = &devices->slots;

	while (*link != slot)
		link = &(*link)->next;
	*link = slot->next;
}

static bool host_devices_remove_is_ejected(const struct slot *slot)
{
	return __atomic_load_n(&slot->devices->ejected, __ATOMIC_RELAXED) >> slot->device & 1;
}

void host_devices_remove_forget(struct host_devices *devices, unsigned int device)
{
	__atomic_and_fetch(&devices->ejected, ~(1u << device), __ATOMIC_RELAXED);
}

static int host_devices_remove_work(void *opaque, unsigned int index, struct err *err)
{
	struct slot *slot = opaque;

	vfio_device_close(take_ptr(slot->closing));
	eventfd_kick(slot->devices->worked_fd);
	return 0;
}

/*
 * Takes a device off the bus, with the vCPUs paused, since they use the bus. A worker closes it, while they run: with
 * the last device, all memory is unpinned. host_devices_remove_end is next.
 */
static void host_devices_remove_drop(struct slot *slot, enum slot_event event)
{
	static const struct crew_ops ops = {.work = host_devices_remove_work};
	struct host_devices *devices = slot->devices;
	const struct host_devices_machine *machine = &devices->machine;
	struct err err;

	slot->state = host_devices_remove_next(slot, event);
	machine->ops->pause_vcpus(machine->opaque);
	host_devices_remove_unlink(devices, slot);
	slot->closing = vfio_pci_remove(take_ptr(slot->pci));
	host_devices_remove_forget(devices, slot->device);
	machine->ops->resume_vcpus(machine->opaque);
	event_source_remove(take_ptr(slot->timer));
	devices->leaving = slot;
	if (crew_create(&ops, slot, 1, THREAD_DEVICE, "drop dev", &slot->crew, &err) < 0)
		host_devices_remove_work(slot, 0, &err);
}

static void host_devices_remove_answer(const struct remover *remover)
{
	if (remover->done)
		remover->done(remover->opaque, 0, NULL);
}

void host_devices_remove_end(struct host_devices *devices)
{
	struct slot *slot = take_ptr(devices->leaving);

	if (slot->crew)
		crew_wait(slot->crew, -1, -1);
	crew_destroy(slot->crew);
	if (slot->state == SLOT_GONE)
		devices->machine.ops->gone(devices->machine.opaque, slot->id);
	eventfd_kick(devices->eject_fd);
	host_devices_remove_answer(&slot->asked);
	host_devices_remove_answer(&slot->forced);
	host_devices_remove_free(slot);
}

/* Drops a device that the guest has ejected; false if there is none. */
static bool host_devices_remove_take_ejected(struct host_devices *devices)
{
	struct slot *slot = devices->slots;

	while (slot && !host_devices_remove_is_ejected(slot))
		slot = slot->next;
	if (!slot)
		return false;
	log_info(devices->machine.log, "vfio %s: the guest has ejected it", slot->id);
	host_devices_remove_drop(slot, SLOT_EJECT);
	return true;
}

void host_devices_remove_on_eject(void *opaque, uint32_t events)
{
	struct host_devices *devices = opaque;
	struct err why;

	eventfd_drain(devices->eject_fd);
	if (host_devices_check_free(devices, &why) == 0)
		host_devices_remove_take_ejected(devices);
}

void host_devices_remove_ejected(void *opaque, unsigned int device)
{
	struct host_devices *devices = opaque;

	__atomic_or_fetch(&devices->ejected, 1u << device, __ATOMIC_RELAXED);
	eventfd_kick(devices->eject_fd);
}

/*
 * Asks the guest to eject the device, unless a blocker is set; host_devices_set_blocker does it then. Returns whether
 * the guest has read the last request, if there was one.
 */
static bool host_devices_remove_ask(struct slot *slot)
{
	return slot->devices->blocker || power_pci_remove(slot->devices->machine.power, slot->device);
}

static void host_devices_remove_on_timeout(void *opaque, uint32_t events)
{
	struct slot *slot = opaque;
	struct remover asked = slot->asked;
	struct err err;

	slot->state = host_devices_remove_next(slot, SLOT_TIMEOUT);
	slot->asked = (struct remover){0};
	event_source_remove(take_ptr(slot->timer));
	err_set(&err, -ETIMEDOUT, "the guest has not ejected it, and it stays; --force removes it anyway");
	asked.done(asked.opaque, -ETIMEDOUT, &err);
}

int host_devices_remove(struct host_devices *devices, const char *id, bool force, unsigned int timeout_ms,
			host_devices_done_fn *done, void *opaque, struct err *err)
{
	struct slot *slot = host_devices_remove_find(devices, id);
	int ret;

	if (!slot && !devices->leaving)
		return err_set(err, -ENOENT, "%s: no host device with this id; mvmm info lists them", id);
	ret = host_devices_check_free(devices, err);
	if (ret < 0)
		return err_prefix(err, ret, "%s", id);
	if (force) {
		slot->forced = (struct remover){done, opaque};
		host_devices_remove_drop(slot, SLOT_EJECT);
		return 0;
	}
	if (host_devices_remove_next(slot, SLOT_REMOVE) == slot->state)
		return err_set(err, -EBUSY, "%s: the guest has already been asked", id);
	ret = event_loop_timer(devices->machine.loop, host_devices_remove_on_timeout, slot, &slot->timer, err);
	if (ret < 0)
		return ret;
	slot->state = host_devices_remove_next(slot, SLOT_REMOVE);
	slot->asked = (struct remover){done, opaque};
	event_timer_set(slot->timer, (uint64_t)timeout_ms * 1000000, 0);
	host_devices_remove_ask(slot);
	return 0;
}

void host_devices_remove_all(struct host_devices *devices)
{
	if (devices->leaving)
		host_devices_remove_end(devices);
	while (host_devices_remove_take_ejected(devices))
		host_devices_remove_end(devices);
	/* A device may be writing to another one. */
	for (struct slot *slot = devices->slots; slot; slot = slot->next)
		vfio_pci_stop_dma(slot->pci);
	while (devices->slots) {
		host_devices_remove_drop(devices->slots, SLOT_END);
		host_devices_remove_end(devices);
	}
}

/* ---- events of devices ---- */

static struct slot *host_devices_remove_slot_of(struct host_devices *devices, const struct vfio_pci *pci)
{
	struct slot *slot = devices->slots;

	while (slot && slot->pci != pci)
		slot = slot->next;
	return slot;
}

/* Logs the requests 1, 2, 4, 8, ... of the host. */
static void host_devices_remove_log_wanted(const struct slot *slot, bool read)
{
	const struct log *log = slot->devices->machine.log;

	if (slot->devices->blocker && slot->wants == 1)
		log_info(log, "vfio %s: the host wants it back; the guest is asked after the migration", slot->id);
	else if (slot->wants == 1)
		log_info(log, "vfio %s: the host wants it back; asking the guest to eject it", slot->id);
	else if (!slot->devices->blocker && is_power_of_two(slot->wants))
		log_warn(log, "vfio %s: the host still wants it back and waits; the guest %s; it is asked again; "
			 "mvmm vfio remove NAME %s --force takes it away", slot->id,
			 read ? "has read the request and keeps the device" : "has not read the request", slot->id);
}

/* The kernel signals this until the device is released, so the guest is asked as long as somebody waits. */
void host_devices_remove_on_wanted(void *opaque, struct vfio_pci *pci)
{
	struct slot *slot = host_devices_remove_slot_of(opaque, pci);

	if (!slot || host_devices_remove_is_ejected(slot))
		return;
	slot->state = host_devices_remove_next(slot, SLOT_WANT);
	slot->wants++;
	host_devices_remove_log_wanted(slot, host_devices_remove_ask(slot));
}

/* ---- what keeps devices where they are ---- */

int host_devices_set_blocker(struct host_devices *devices, const char *why, struct err *err)
{
	int code = why ? host_devices_check_free(devices, err) : 0;

	if (code < 0)
		return code;
	devices->blocker = why;
	for (struct slot *slot = devices->slots; slot; slot = slot->next)
		if (why)
			power_pci_withdraw(devices->machine.power, slot->device);
		else if (slot->state != SLOT_PRESENT && !host_devices_remove_is_ejected(slot))
			host_devices_remove_ask(slot);
	if (!why)
		eventfd_kick(devices->eject_fd);
	return 0;
}

int host_devices_check_present(const struct host_devices *devices, struct err *err)
{
	for (const struct slot *slot = devices->slots; slot; slot = slot->next)
		if (host_devices_remove_is_ejected(slot))
			return err_set(err, -EBUSY, "vfio %s: the guest has ejected it meanwhile; migrate again, without it",
				       slot->id);
	return 0;
}
