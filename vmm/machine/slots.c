/* SPDX-License-Identifier: Apache-2.0 */
/* See slots.h. */
#include "vmm/machine/slots.h"

#include "core/crew.h"
#include "core/irq.h"
#include "core/monotonic.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#define SETTLE_MS 10000 /* for requests in flight of a device that leaves */
#define SETTLE_POLL_NS 2000000u

/* Who has asked to remove the device. */
enum slot_state {
	SLOT_PRESENT, /* nobody */
	SLOT_WANTED,  /* the host */
	SLOT_ASKED,   /* a caller of slots_remove, who waits */
	SLOT_BOTH,
	SLOT_GONE,    /* the device was removed, and the slot is freed */
};

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
static const enum slot_state slots_steps[SLOT_GONE][SLOT_EVENTS] = {
			 /* REMOVE     WANT         TIMEOUT       EJECT      END */
	[SLOT_PRESENT] = {SLOT_ASKED, SLOT_WANTED, SLOT_PRESENT, SLOT_GONE, SLOT_PRESENT},
	[SLOT_WANTED]  = {SLOT_BOTH,  SLOT_WANTED, SLOT_WANTED,  SLOT_GONE, SLOT_GONE},
	[SLOT_ASKED]   = {SLOT_ASKED, SLOT_BOTH,   SLOT_PRESENT, SLOT_GONE, SLOT_GONE},
	[SLOT_BOTH]    = {SLOT_BOTH,  SLOT_BOTH,   SLOT_WANTED,  SLOT_GONE, SLOT_GONE},
};

/* A caller of slots_remove, who waits. */
struct slot_remover {
	slots_done_fn *done;
	void *opaque;
};

struct slot {
	struct slots *slots;
	const struct slot_ops *ops;
	void *opaque;
	char *id;
	unsigned int device; /* its number on the bus */
	enum slot_state state;
	unsigned int wants; /* how often the host has asked */
	struct event_source *timer; /* of the caller who waits for the guest */
	struct slot_remover asked, forced;
	struct slot *next;
};

struct slots {
	struct slots_config config;
	uint32_t ejected; /* bit d: the guest has ejected device d; set by vCPUs, cleared by the loop */
	struct event_source *eject, *worked, *settler;
	int eject_fd, worked_fd; /* eventfds; worked: the worker has ended */
	struct slot *first;
	const char *blocker; /* why devices cannot come, go or change now, or NULL */
	/* What is being done; id NULL: nothing. */
	struct slots_job job;
	struct crew *crew;    /* the worker; NULL: the loop did the work */
	struct slot *leaving; /* of that job: a device that settles, or has left the bus */
	bool settling;
	int64_t settle_by;
};

static enum slot_state slots_next(const struct slot *slot, enum slot_event event)
{
	return slots_steps[slot->state][event];
}

/* ---- one thing at a time ---- */

static const struct {
	const char *name, *after, *thread;
} doings[] = {
	[SLOTS_ADDING] = {"added", "it is there", "add device"},
	[SLOTS_REMOVING] = {"removed", "it is gone", "drop dev"},
	[SLOTS_CHANGING] = {"changed", "that is done", "change dev"},
};

int slots_check_free(const struct slots *slots, struct err *err)
{
	const struct slots_job *job = &slots->job;

	if (slots->blocker)
		return err_set(err, -EBUSY, "%s", slots->blocker);
	if (job->id)
		return err_set(err, -EBUSY, "the device %s is being %s; try again when %s", job->id,
			       doings[job->doing].name, doings[job->doing].after);
	return 0;
}

static int slots_work(void *opaque, unsigned int index, struct err *err)
{
	struct slots *slots = opaque;
	int code = slots->job.work(slots->job.opaque, err);

	eventfd_kick(slots->worked_fd);
	return code;
}

static int slots_start_worker(struct slots *slots, struct err *err)
{
	static const struct crew_ops ops = {.work = slots_work};

	return crew_create(&ops, slots, 1, THREAD_DEVICE, doings[slots->job.doing].thread, &slots->crew, err);
}

int slots_begin(struct slots *slots, const struct slots_job *job, struct err *err)
{
	int code = slots_check_free(slots, err);

	if (code < 0)
		return code;
	slots->job = *job;
	code = slots_start_worker(slots, err);
	if (code < 0)
		slots->job.id = NULL;
	return code;
}

/* Waits for the worker, and calls done. What the guest has ejected meanwhile leaves with the next turn of the loop. */
static void slots_end_job(struct slots *slots)
{
	struct crew *crew = take_ptr(slots->crew);
	const struct slots_job job = slots->job;
	struct err err = {""};
	int code = 0;

	if (crew) {
		crew_wait(crew, -1, -1);
		code = crew_result(crew, &err);
	}
	crew_destroy(crew);
	eventfd_drain(slots->worked_fd);
	slots->job = (struct slots_job){0};
	eventfd_kick(slots->eject_fd);
	job.done(job.opaque, code, &err);
}

static void slots_on_worked(void *opaque, uint32_t events)
{
	struct slots *slots = opaque;

	if (eventfd_drain(slots->worked_fd) && slots->job.id && !slots->settling)
		slots_end_job(slots);
}

/* ---- a device leaves ---- */

static bool slots_is_ejected(const struct slot *slot)
{
	return __atomic_load_n(&slot->slots->ejected, __ATOMIC_RELAXED) >> slot->device & 1;
}

static void slots_clear_ejected(struct slots *slots, unsigned int device)
{
	__atomic_and_fetch(&slots->ejected, ~(1u << device), __ATOMIC_RELAXED);
}

static void slots_unlink(struct slot *slot)
{
	struct slot **link = &slot->slots->first;

	while (*link && *link != slot)
		link = &(*link)->next;
	if (*link)
		*link = slot->next;
}

static void slots_free(struct slot *slot)
{
	event_source_remove(slot->timer);
	free(slot->id);
	free(slot);
}

static void slots_answer(const struct slot_remover *remover, int code, const struct err *err)
{
	if (remover->done)
		remover->done(remover->opaque, code, code ? err : NULL);
}

static int slots_close(void *opaque, struct err *err)
{
	struct slot *slot = opaque;

	slot->ops->close(slot->opaque);
	return 0;
}

static void slots_left(void *opaque, int code, const struct err *err)
{
	struct slot *slot = opaque;

	slot->slots->leaving = NULL;
	slot->ops->gone(slot->opaque, slot->state == SLOT_GONE);
	slots_answer(&slot->asked, 0, NULL);
	slots_answer(&slot->forced, 0, NULL);
	slots_free(slot);
}

/* Nothing else is being done from now on. */
static void slots_claim(struct slot *slot)
{
	struct slots *slots = slot->slots;

	slots->leaving = slot;
	slots->job = (struct slots_job){SLOTS_REMOVING, slot->id, slots_close, slots_left, slot};
}

/*
 * Takes a device off the bus, with the vCPUs paused, since they use the bus. A worker closes it, while they run.
 * slots_left is next.
 */
static void slots_drop(struct slot *slot, enum slot_event event)
{
	struct slots *slots = slot->slots;
	const struct slots_config *config = &slots->config;
	struct err err;

	slots_claim(slot);
	slot->state = slots_next(slot, event);
	config->pause_vcpus(config->opaque);
	slots_unlink(slot);
	slot->ops->detach(slot->opaque);
	slots_clear_ejected(slots, slot->device);
	config->resume_vcpus(config->opaque);
	event_source_remove(take_ptr(slot->timer));
	if (slots_start_worker(slots, &err) < 0)
		slots_work(slots, 0, &err);
}

/* It stays: tells those who wait for it. */
static void slots_stay(struct slot *slot, int code, const struct err *err)
{
	struct slots *slots = slot->slots;
	const struct slot_remover forced = slot->forced;

	slots->job = (struct slots_job){0};
	slots->leaving = NULL;
	slot->ops->unsettle(slot->opaque);
	slots_clear_ejected(slots, slot->device);
	slot->forced = (struct slot_remover){0};
	log_warn(slots->config.log, "%s %s: %s; it stays", slot->ops->kind, slot->id, err->text);
	eventfd_kick(slots->eject_fd);
	slots_answer(&forced, code, err);
}

static void slots_end_settling(struct slots *slots)
{
	slots->settling = false;
	event_source_remove(take_ptr(slots->settler));
}

static void slots_settle(struct slots *slots)
{
	struct slot *slot = slots->leaving;
	struct err err;
	int code = slot->ops->settle(slot->opaque, &err);

	if (code == -EINPROGRESS && monotonic_ms() < slots->settle_by)
		return;
	slots_end_settling(slots);
	if (code)
		slots_stay(slot, code == -EINPROGRESS ? -ETIMEDOUT : code, &err);
	else
		slots_drop(slot, SLOT_EJECT);
}

static void slots_on_settle(void *opaque, uint32_t expirations)
{
	slots_settle(opaque);
}

/* The guest has ejected it, or it is removed by force. */
static void slots_let_go(struct slot *slot)
{
	struct slots *slots = slot->slots;
	struct err err;

	if (!slot->ops->settle) {
		slots_drop(slot, SLOT_EJECT);
		return;
	}
	slots_claim(slot);
	slots->settling = true;
	slots->settle_by = monotonic_ms() + SETTLE_MS;
	if (event_loop_timer(slots->config.loop, slots_on_settle, slots, &slots->settler, &err) < 0)
		slots->settle_by = 0;
	else
		event_timer_set(slots->settler, SETTLE_POLL_NS, SETTLE_POLL_NS);
	slots_settle(slots);
}

/* Lets a device go that the guest has ejected; NULL if there is none. */
static struct slot *slots_find_ejected(const struct slots *slots)
{
	struct slot *slot = slots->first;

	while (slot && !slots_is_ejected(slot))
		slot = slot->next;
	if (slot)
		log_info(slots->config.log, "%s %s: the guest has ejected it", slot->ops->kind, slot->id);
	return slot;
}

static void slots_on_eject(void *opaque, uint32_t events)
{
	struct slots *slots = opaque;
	struct slot *slot;
	struct err why;

	eventfd_drain(slots->eject_fd);
	slot = slots_check_free(slots, &why) ? NULL : slots_find_ejected(slots);
	if (slot)
		slots_let_go(slot);
}

/* On a vCPU's thread. */
static void slots_ejected(void *opaque, unsigned int device)
{
	struct slots *slots = opaque;

	__atomic_or_fetch(&slots->ejected, 1u << device, __ATOMIC_RELAXED);
	eventfd_kick(slots->eject_fd);
}

/* ---- the guest is asked ---- */

/*
 * Asks the guest to eject the device, unless a blocker is set; slots_set_blocker does it then. Returns whether the guest
 * has read the last request, if there was one.
 */
static bool slots_ask(const struct slot *slot)
{
	return slot->slots->blocker || power_pci_remove(slot->slots->config.power, slot->device);
}

static void slots_on_timeout(void *opaque, uint32_t events)
{
	struct slot *slot = opaque;
	struct slot_remover asked = slot->asked;
	struct err err;

	slot->state = slots_next(slot, SLOT_TIMEOUT);
	slot->asked = (struct slot_remover){0};
	event_source_remove(take_ptr(slot->timer));
	err_set(&err, -ETIMEDOUT, "the guest has not ejected it, and it stays; --force removes it anyway");
	slots_answer(&asked, -ETIMEDOUT, &err);
}

static struct slot *slots_find_slot(const struct slots *slots, const struct slot_ops *ops, const char *id)
{
	struct slot *slot = slots->first;

	while (slot && (slot->ops != ops || strcmp(slot->id, id) != 0))
		slot = slot->next;
	return slot;
}

void *slots_find(const struct slots *slots, const struct slot_ops *ops, const char *id)
{
	const struct slot *slot = slots_find_slot(slots, ops, id);

	return slot ? slot->opaque : NULL;
}

static int slots_check_askable(const struct slot *slot, struct err *err)
{
	if (!(slot->slots->config.mask >> slot->device & 1))
		return err_set(err, -EOPNOTSUPP,
			       "%s: the guest's tables do not let it eject this device; --force takes it away", slot->id);
	if (slots_next(slot, SLOT_REMOVE) == slot->state)
		return err_set(err, -EBUSY, "%s: the guest has already been asked", slot->id);
	return 0;
}

int slots_remove(struct slots *slots, const struct slot_ops *ops, const char *id, bool force, unsigned int timeout_ms,
		 slots_done_fn *done, void *opaque, struct err *err)
{
	struct slot *slot = slots_find_slot(slots, ops, id);
	int ret;

	if (!slot && !slots->leaving)
		return err_set(err, -ENOENT, "%s: no %s with this id; mvmm info lists them", id, ops->noun);
	ret = slots_check_free(slots, err);
	if (ret < 0)
		return err_prefix(err, ret, "%s", id);
	if (force) {
		slot->forced = (struct slot_remover){done, opaque};
		slots_let_go(slot);
		return 0;
	}
	ret = slots_check_askable(slot, err);
	ret = ret ?: event_loop_timer(slots->config.loop, slots_on_timeout, slot, &slot->timer, err);
	if (ret < 0)
		return ret;
	slot->state = slots_next(slot, SLOT_REMOVE);
	slot->asked = (struct slot_remover){done, opaque};
	event_timer_set(slot->timer, (uint64_t)timeout_ms * 1000000, 0);
	slots_ask(slot);
	return 0;
}

/* Logs the requests 1, 2, 4, 8, ... of the host. */
static void slots_log_wanted(const struct slot *slot, bool read)
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
	if (slots_is_ejected(slot) || slot == slot->slots->leaving)
		return;
	slot->state = slots_next(slot, SLOT_WANT);
	slot->wants++;
	slots_log_wanted(slot, slots_ask(slot));
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
		else if (slot->state != SLOT_PRESENT && !slots_is_ejected(slot))
			slots_ask(slot);
	if (!why)
		eventfd_kick(slots->eject_fd);
	return 0;
}

int slots_check_present(const struct slots *slots, struct err *err)
{
	for (const struct slot *slot = slots->first; slot; slot = slot->next)
		if (slots_is_ejected(slot))
			return err_set(err, -EBUSY, "%s %s: the guest has ejected it meanwhile; migrate again, without it",
				       slot->ops->kind, slot->id);
	return 0;
}

/* ---- a device comes ---- */

int slots_find_free(const struct slots *slots, const char *kind, const char *id, struct err *err)
{
	for (unsigned int device = PCI_DEVICES; device-- > 0;)
		if (slots->config.mask & 1u << device && !pci_bus_function(slots->config.pci, PCI_DEVFN(device, 0)))
			return PCI_DEVFN(device, 0);
	return err_set(err, -ENOSPC, "--%s %s: no slot of the PCI bus is free; remove another device", kind, id);
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
	/* The one before has been ejected, this one has not. */
	slots_clear_ejected(slots, slot->device);
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

/* ---- the end ---- */

/* A device that settles is on its way: the guest does not run any more, so it goes now. */
void slots_finish(struct slots *slots)
{
	while (slots->job.id) {
		if (slots->settling) {
			slots_end_settling(slots);
			slots_drop(slots->leaving, SLOT_EJECT);
		}
		slots_end_job(slots);
	}
}

void slots_leave_ejected(struct slots *slots)
{
	for (struct slot *slot; (slot = slots_find_ejected(slots));) {
		slots_drop(slot, SLOT_EJECT);
		slots_end_job(slots);
	}
}

void slots_leave(struct slot *slot)
{
	struct slots *slots = slot->slots;

	slots_drop(slot, SLOT_END);
	slots_end_job(slots);
}

bool slots_is_asked(const struct slot *slot)
{
	return slot->state != SLOT_PRESENT;
}

static int slots_watch(struct slots *slots, event_fn *fn, int *fd, struct event_source **source, struct err *err)
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
	code = slots_watch(slots, slots_on_eject, &slots->eject_fd, &slots->eject, err);
	code = code ?: slots_watch(slots, slots_on_worked, &slots->worked_fd, &slots->worked, err);
	if (code < 0) {
		slots_destroy(slots);
		return code;
	}
	power_set_ejected(config->power, slots_ejected, slots);
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
