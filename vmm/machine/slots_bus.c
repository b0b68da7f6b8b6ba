/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slots of a machine, see slots.h: how devices come, what the guest is asked, and what keeps them where they are. How they
 * leave is in slots_leave.c.
 */
#include "vmm/machine/slots_internal.h"

#include "core/irq.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- the guest is asked ---- */

/*
 * Asks the guest to eject the device, unless a blocker is set; slots_set_blocker does it then. Returns whether the guest
 * has read the last request, if there was one.
 */
static bool slots_bus_ask(const struct slot *slot)
{
	return slot->slots->blocker || power_pci_remove(slot->slots->config.power, slot->device);
}

static void slots_bus_on_timeout(void *opaque, uint32_t events)
{
	struct slot *slot = opaque;
	struct slot_remover asked = slot->asked;
	struct err err;

	slot->state = slots_leave_next(slot, SLOT_TIMEOUT);
	slot->asked = (struct slot_remover){0};
	event_source_remove(take_ptr(slot->timer));
	err_set(&err, -ETIMEDOUT, "the guest has not ejected it, and it stays; --force removes it anyway");
	slots_answer(&asked, -ETIMEDOUT, &err);
}

static struct slot *slots_bus_find_slot(const struct slots *slots, const struct slot_ops *ops, const char *id)
{
	struct slot *slot = slots->first;

	while (slot && (slot->ops != ops || strcmp(slot->id, id) != 0))
		slot = slot->next;
	return slot;
}

void *slots_find(const struct slots *slots, const struct slot_ops *ops, const char *id)
{
	const struct slot *slot = slots_bus_find_slot(slots, ops, id);

	return slot ? slot->opaque : NULL;
}

static int slots_bus_check_askable(const struct slot *slot, struct err *err)
{
	if (!(slot->slots->config.mask >> slot->device & 1))
		return err_set(err, -EOPNOTSUPP,
			       "%s: the guest's tables do not let it eject this device; --force takes it away", slot->id);
	if (slots_leave_next(slot, SLOT_REMOVE) == slot->state)
		return err_set(err, -EBUSY, "%s: the guest has already been asked", slot->id);
	return 0;
}

int slots_remove(struct slots *slots, const struct slot_ops *ops, const char *id, bool force, unsigned int timeout_ms,
		 slots_done_fn *done, void *opaque, struct err *err)
{
	struct slot *slot = slots_bus_find_slot(slots, ops, id);
	int ret;

	if (!slot && !slots->leaving)
		return err_set(err, -ENOENT, "%s: no %s with this id; mvmm info lists them", id, ops->noun);
	ret = slots_check_free(slots, err);
	if (ret < 0)
		return err_prefix(err, ret, "%s", id);
	if (force) {
		slot->forced = (struct slot_remover){done, opaque};
		slot->by_force = true;
		slot->eject_ms = MAX(timeout_ms, 1u);
		slots_leave_begin(slot);
		return 0;
	}
	ret = slots_bus_check_askable(slot, err);
	ret = ret ?: event_loop_timer(slots->config.loop, slots_bus_on_timeout, slot, &slot->timer, err);
	if (ret < 0)
		return ret;
	slot->state = slots_leave_next(slot, SLOT_REMOVE);
	slot->asked = (struct slot_remover){done, opaque};
	event_timer_set(slot->timer, (uint64_t)timeout_ms * 1000000, 0);
	slots_bus_ask(slot);
	return 0;
}

/* Logs the requests 1, 2, 4, 8, ... of the host. */
static void slots_bus_log_wanted(const struct slot *slot, bool read)
{
	const struct log *log = slot->slots->config.log;
	const char *kind = slot->ops->kind;

	if (slot->slots->blocker && slot->wants == 1)
		log_info(log, "%s %s: the host wants it back; the guest is asked after the migration", kind, slot->id);
	else if (slot->wants == 1)
		log_info(log, "%s %s: the host wants it back; asking the guest to eject it", kind, slot->id);
	else if (!slot->slots->blocker && is_power_of_two(slot->wants))
		log_warn(log, "%s %s: the host still wants it back and waits; the guest %s; it is asked again; "
			 "mvmm %s remove NAME %s --force takes it away", kind, slot->id,
			 read ? "has read the request and keeps the device" : "has not read the request", kind, slot->id);
}

void slots_want(struct slot *slot)
{
	if (slots_leave_is_ejected(slot) || slot == slot->slots->leaving)
		return;
	slot->state = slots_leave_next(slot, SLOT_WANT);
	slot->wants++;
	slots_bus_log_wanted(slot, slots_bus_ask(slot));
}

/* ---- what keeps devices where they are ---- */

int slots_set_blocker(struct slots *slots, const char *why, struct err *err)
{
	int code = why ? slots_check_free(slots, err) : 0;

	if (code < 0)
		return code;
	slots->blocker = why;
	for (struct slot *slot = slots->first; slot; slot = slot->next)
		if (why)
			power_pci_withdraw(slots->config.power, slot->device);
		else if (slot->state != SLOT_PRESENT && !slots_leave_is_ejected(slot))
			slots_bus_ask(slot);
	if (!why)
		eventfd_kick(slots->eject_fd);
	return 0;
}

int slots_check_present(const struct slots *slots, struct err *err)
{
	for (const struct slot *slot = slots->first; slot; slot = slot->next)
		if (slots_leave_is_ejected(slot))
			return err_set(err, -EBUSY, "%s %s: the guest has ejected it meanwhile; migrate again, without it",
				       slot->ops->kind, slot->id);
	return 0;
}

/* ---- a device comes ---- */

/* The highest free one of these; -1: none is. */
static int slots_bus_find_highest(const struct slots *slots, uint32_t devices)
{
	for (unsigned int device = PCI_DEVICES; device-- > 0;)
		if (devices & 1u << device && !pci_bus_function(slots->config.pci, PCI_DEVFN(device, 0)))
			return PCI_DEVFN(device, 0);
	return -1;
}

int slots_find_free(const struct slots *slots, const char *kind, const char *id, struct err *err)
{
	int devfn = slots_bus_find_highest(slots, slots->config.mask & ~slots->lost);

	if (devfn < 0)
		devfn = slots_bus_find_highest(slots, slots->config.mask);
	return devfn >= 0 ? devfn :
			    err_set(err, -ENOSPC, "--%s %s: no slot of the PCI bus is free; remove another device", kind, id);
}

int slots_add(struct slots *slots, const struct slot_ops *ops, void *opaque, const char *id, uint8_t devfn,
	      struct slot **ret, struct err *err)
{
	struct slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		return err_sys(err, -ENOMEM, "--%s %s", ops->kind, id);
	*slot = (struct slot){.slots = slots, .ops = ops, .opaque = opaque, .id = strdup(id), .device = devfn >> 3,
			      .next = slots->first};
	if (!slot->id) {
		slots_free(slot);
		return err_sys(err, -ENOMEM, "--%s %s", ops->kind, id);
	}
	slots->first = slot;
	/* The one before has been ejected, or is lost, this one has not. */
	slots_leave_clear_ejected(slots, 1u << slot->device);
	power_pci_withdraw(slots->config.power, slot->device);
	slots->lost &= ~(1u << slot->device);
	*ret = slot;
	return 0;
}

void slots_announce(struct slot *slot)
{
	power_pci_added(slot->slots->config.power, slot->device);
}

void slots_forget(struct slot *slot)
{
	if (!slot)
		return;
	slots_unlink(slot);
	slots_free(slot);
}

bool slots_is_asked(const struct slot *slot)
{
	return slot->state != SLOT_PRESENT;
}

static int slots_bus_watch(struct slots *slots, event_fn *fn, int *fd, struct event_source **source, struct err *err)
{
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd < 0 ? err_sys(err, -errno, "eventfd") :
			 event_loop_watch(slots->config.loop, *fd, EPOLLIN, fn, slots, source, err);
}

int slots_create(const struct slots_config *config, struct slots **ret, struct err *err)
{
	struct slots *slots = calloc(1, sizeof(*slots));
	int code;

	if (!slots)
		return err_sys(err, -ENOMEM, "slots");
	slots->config = *config;
	slots->eject_fd = slots->worked_fd = -1;
	code = slots_bus_watch(slots, slots_leave_on_eject, &slots->eject_fd, &slots->eject, err);
	code = code ?: slots_bus_watch(slots, slots_job_on_worked, &slots->worked_fd, &slots->worked, err);
	if (code < 0) {
		slots_destroy(slots);
		return code;
	}
	power_set_ejected(config->power, slots_leave_on_ejected, slots);
	*ret = slots;
	return 0;
}

void slots_destroy(struct slots *slots)
{
	if (!slots)
		return;
	power_set_ejected(slots->config.power, NULL, NULL);
	event_source_remove(slots->eject);
	event_source_remove(slots->worked);
	fd_close(&slots->eject_fd);
	fd_close(&slots->worked_fd);
	free(slots);
}
