/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a device leaves its slot, see slots.h: what the guest has ejected, and what is taken away by force.
 *
 * Its requests complete first. One that the guest has ejected then leaves the bus. One that is removed by force is
 * disconnected, if it can be: it answers the guest as before, but fails its requests; the guest, which is asked to eject
 * it, can let go of it in order. It leaves the bus when the guest has, or its time is over. One that cannot be disconnected
 * leaves at once, and the guest is told afterwards: as of a card that was pulled out. When the guest ejects what is not
 * there any more, nothing happens: until then its slot is the last one to be taken again.
 */
#include "vmm/machine/slots_internal.h"

#include "core/irq.h"
#include "core/monotonic.h"

#define SETTLE_MS 10000 /* for requests in flight of a device that leaves */
#define SETTLE_POLL_MS 2
#define EJECT_POLL_MS 100 /* whether the guest still runs, while it has a device to eject */

/*
 * The state after an event. SLOT_REMOVE asks the guest if it changes the state, SLOT_WANT each time. While a blocker is
 * set, the guest is not asked, SLOT_EJECT is deferred, and callers get -EBUSY.
 */
static const enum slot_state slots_leave_steps[SLOT_GONE][SLOT_EVENTS] = {
			 /* REMOVE     WANT         TIMEOUT       EJECT      END */
	[SLOT_PRESENT] = {SLOT_ASKED, SLOT_WANTED, SLOT_PRESENT, SLOT_GONE, SLOT_PRESENT},
	[SLOT_WANTED]  = {SLOT_BOTH,  SLOT_WANTED, SLOT_WANTED,  SLOT_GONE, SLOT_GONE},
	[SLOT_ASKED]   = {SLOT_ASKED, SLOT_BOTH,   SLOT_PRESENT, SLOT_GONE, SLOT_GONE},
	[SLOT_BOTH]    = {SLOT_BOTH,  SLOT_BOTH,   SLOT_WANTED,  SLOT_GONE, SLOT_GONE},
};

enum slot_state slots_leave_next(const struct slot *slot, enum slot_event event)
{
	return slots_leave_steps[slot->state][event];
}

/* ---- what the guest has ejected ---- */

bool slots_leave_is_ejected(const struct slot *slot)
{
	return __atomic_load_n(&slot->slots->ejected, __ATOMIC_RELAXED) >> slot->device & 1;
}

void slots_leave_clear_ejected(struct slots *slots, uint32_t devices)
{
	__atomic_and_fetch(&slots->ejected, ~devices, __ATOMIC_RELAXED);
}

/* It has ejected what is not there: what comes there later stays. */
static void slots_leave_ignore_empty(struct slots *slots)
{
	uint32_t empty = __atomic_load_n(&slots->ejected, __ATOMIC_RELAXED);

	for (const struct slot *slot = slots->first; slot; slot = slot->next)
		empty &= ~(1u << slot->device);
	slots->lost &= ~empty;
	slots_leave_clear_ejected(slots, empty);
}

void slots_leave_on_ejected(void *opaque, unsigned int device)
{
	struct slots *slots = opaque;

	__atomic_or_fetch(&slots->ejected, 1u << device, __ATOMIC_RELAXED);
	eventfd_kick(slots->eject_fd);
}

/* ---- off the bus ---- */

void slots_unlink(struct slot *slot)
{
	struct slot **link = &slot->slots->first;

	while (*link && *link != slot)
		link = &(*link)->next;
	if (*link)
		*link = slot->next;
}

void slots_free(struct slot *slot)
{
	event_source_remove(slot->timer);
	free(slot->id);
	free(slot);
}

void slots_answer(const struct slot_remover *remover, int code, const struct err *err)
{
	if (remover->done)
		remover->done(remover->opaque, code, code ? err : NULL);
}

static int slots_leave_close(void *opaque, struct err *err)
{
	struct slot *slot = opaque;

	slot->ops->close(slot->opaque);
	return 0;
}

static void slots_leave_done(void *opaque, int code, const struct err *err)
{
	struct slot *slot = opaque;

	slot->slots->leaving = NULL;
	slot->ops->gone(slot->opaque, slot->state == SLOT_GONE);
	slots_answer(&slot->asked, 0, NULL);
	slots_answer(&slot->forced, 0, NULL);
	slots_free(slot);
}

/* Nothing else is being done from now on. */
static void slots_leave_claim(struct slot *slot)
{
	struct slots *slots = slot->slots;

	slots->leaving = slot;
	slots->disconnected = false;
	slots->job = (struct slots_job){SLOTS_REMOVING, slot->id, slots_leave_close, slots_leave_done, slot};
}

/* The guest may still use it. */
static void slots_leave_lose(struct slot *slot)
{
	struct slots *slots = slot->slots;

	slots->lost |= 1u << slot->device;
	if (!slots->disconnected)
		power_pci_remove(slots->config.power, slot->device);
}

/*
 * Takes a device off the bus, with the vCPUs paused, since they use the bus. A worker closes it, while they run.
 * slots_leave_done is next.
 */
static void slots_leave_bus(struct slot *slot, enum slot_event event)
{
	struct slots *slots = slot->slots;
	const struct slots_config *config = &slots->config;
	struct err err;

	slot->state = slots_leave_next(slot, event);
	config->pause_vcpus(config->opaque);
	slots_unlink(slot);
	slot->ops->detach(slot->opaque);
	if (slot->by_force && config->mask >> slot->device & 1 && !slots_leave_is_ejected(slot))
		slots_leave_lose(slot);
	slots_leave_clear_ejected(slots, 1u << slot->device);
	config->resume_vcpus(config->opaque);
	event_source_remove(take_ptr(slot->timer));
	if (slots_job_start(slots, &err) < 0)
		slots_job_work(slots, 0, &err);
}

/* ---- on the bus ---- */

static void slots_leave_end_phase(struct slots *slots)
{
	slots->phase = SLOTS_SETTLED;
	event_source_remove(take_ptr(slots->phase_timer));
}

/* It stays: tells those who wait for it. */
static void slots_leave_stay(struct slot *slot, int code, const struct err *err)
{
	struct slots *slots = slot->slots;
	const struct slot_remover forced = slot->forced;

	slots->job = (struct slots_job){0};
	slots->leaving = NULL;
	slot->ops->unsettle(slot->opaque);
	slots_leave_clear_ejected(slots, 1u << slot->device);
	slot->forced = (struct slot_remover){0};
	slot->by_force = false;
	log_warn(slots->config.log, "%s %s: %s; it stays", slot->ops->kind, slot->id, err->text);
	eventfd_kick(slots->eject_fd);
	slots_answer(&forced, code, err);
}

/* Whether the guest gets time to let go of it. */
static bool slots_leave_can_disconnect(const struct slot *slot)
{
	const struct slots *slots = slot->slots;

	return slot->by_force && !slots->disconnected && slots->config.mask >> slot->device & 1 &&
	       !slots_leave_is_ejected(slot);
}

static void slots_leave_set_phase(struct slots *slots, enum slots_phase phase, unsigned int ms, unsigned int poll_ms)
{
	uint64_t poll_ns = (uint64_t)poll_ms * 1000000;

	slots->phase = phase;
	slots->phase_end = monotonic_ms() + ms;
	event_timer_set(slots->phase_timer, poll_ns, poll_ns);
}

/* True: it is on the bus until the guest has ejected it. */
static bool slots_leave_disconnect(struct slot *slot)
{
	struct slots *slots = slot->slots;
	struct err err;

	if (slot->ops->disconnect(slot->opaque, &err)) {
		log_warn(slots->config.log, "%s %s: %s; it leaves at once", slot->ops->kind, slot->id, err.text);
		return false;
	}
	slots->disconnected = true;
	slots_leave_set_phase(slots, SLOTS_DISCONNECTED, slot->eject_ms, MIN(slot->eject_ms, EJECT_POLL_MS));
	slots->answer_by = slots->phase_end;
	power_pci_remove(slots->config.power, slot->device);
	return true;
}

static void slots_leave_settle(struct slots *slots)
{
	struct slot *slot = slots->leaving;
	struct err err;
	int code = slot->ops->settle(slot->opaque, &err);

	if (code == -EINPROGRESS && monotonic_ms() < slots->phase_end)
		return;
	if (!code && slots->phase_timer && slots_leave_can_disconnect(slot) && slots_leave_disconnect(slot))
		return;
	slots_leave_end_phase(slots);
	if (code)
		slots_leave_stay(slot, code == -EINPROGRESS ? -ETIMEDOUT : code, &err);
	else
		slots_leave_bus(slot, SLOT_EJECT);
}

static void slots_leave_begin_settling(struct slots *slots)
{
	if (slots->phase_timer)
		slots_leave_set_phase(slots, SLOTS_SETTLING, SETTLE_MS, SETTLE_POLL_MS);
	else
		slots->phase_end = 0;
	slots_leave_settle(slots);
}

/* Who waits is told that it lasts as long as the pause. */
static void slots_leave_tell_paused(struct slot *slot)
{
	const struct slot_remover forced = slot->forced;
	struct err err;

	slot->forced = (struct slot_remover){0};
	err_set(&err, -ETIMEDOUT, "%s: its requests fail from now on; it leaves when the machine, which is paused, runs again",
		slot->id);
	slots_answer(&forced, -ETIMEDOUT, &err);
}

/* A guest that is paused cannot eject it: all of its time begins when it runs. */
static void slots_leave_wait_for_guest(struct slots *slots)
{
	struct slot *slot = slots->leaving;
	int64_t now = monotonic_ms();

	if (!slots->config.guest_runs(slots->config.opaque)) {
		slots->phase_end = now + slot->eject_ms;
		if (now >= slots->answer_by)
			slots_leave_tell_paused(slot);
	} else if (now >= slots->phase_end) {
		log_info(slots->config.log, "%s %s: the guest has not ejected it; it is gone now", slot->ops->kind, slot->id);
		slots_leave_begin_settling(slots);
	}
}

static void slots_leave_on_phase(void *opaque, uint32_t expirations)
{
	struct slots *slots = opaque;

	if (slots->phase == SLOTS_SETTLING)
		slots_leave_settle(slots);
	else
		slots_leave_wait_for_guest(slots);
}

void slots_leave_begin(struct slot *slot)
{
	struct slots *slots = slot->slots;
	struct err err;

	slots_leave_claim(slot);
	if (!slot->ops->settle) {
		slots_leave_bus(slot, SLOT_EJECT);
		return;
	}
	if (event_loop_timer(slots->config.loop, slots_leave_on_phase, slots, &slots->phase_timer, &err) < 0)
		slots->phase_timer = NULL;
	slots_leave_begin_settling(slots);
}

/* ---- the guest ejects ---- */

static void slots_leave_log_ejected(const struct slot *slot)
{
	log_info(slot->slots->config.log, "%s %s: the guest has ejected it", slot->ops->kind, slot->id);
}

/* A device that the guest has ejected; NULL if there is none. */
static struct slot *slots_leave_find_ejected(const struct slots *slots)
{
	struct slot *slot = slots->first;

	while (slot && !slots_leave_is_ejected(slot))
		slot = slot->next;
	if (slot)
		slots_leave_log_ejected(slot);
	return slot;
}

void slots_leave_on_eject(void *opaque, uint32_t events)
{
	struct slots *slots = opaque;
	struct slot *slot;
	struct err why;

	eventfd_drain(slots->eject_fd);
	slots_leave_ignore_empty(slots);
	if (slots->phase == SLOTS_DISCONNECTED && slots_leave_is_ejected(slots->leaving)) {
		slots_leave_log_ejected(slots->leaving);
		slots_leave_begin_settling(slots);
		return;
	}
	slot = slots_check_free(slots, &why) ? NULL : slots_leave_find_ejected(slots);
	if (slot)
		slots_leave_begin(slot);
}

/* ---- the end ---- */

/* A device on its way that is on the bus: the guest does not run any more, so it goes now. */
void slots_finish(struct slots *slots)
{
	while (slots->job.id) {
		if (slots->phase != SLOTS_SETTLED) {
			slots_leave_end_phase(slots);
			slots_leave_bus(slots->leaving, SLOT_EJECT);
		}
		slots_job_end(slots);
	}
}

void slots_leave_ejected(struct slots *slots)
{
	for (struct slot *slot; (slot = slots_leave_find_ejected(slots));) {
		slots_leave_claim(slot);
		slots_leave_bus(slot, SLOT_EJECT);
		slots_job_end(slots);
	}
}

void slots_leave(struct slot *slot)
{
	struct slots *slots = slot->slots;

	slots_leave_claim(slot);
	slots_leave_bus(slot, SLOT_END);
	slots_job_end(slots);
}
