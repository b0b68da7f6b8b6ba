/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slots of the PCI bus whose devices come and go while the guest runs: which one is free, the events to the guest, the
 * ejection, and who waits for it. What the devices are, their owners know, as host_devices.h. One device comes, goes or
 * changes at a time; a worker does what takes long.
 *
 * All calls are on the thread of the machine's event loop, unless they say otherwise.
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "devices/pci.h"
#include "devices/platform.h"

struct slots;
struct slot; /* a device that can leave */

struct slots_config {
	struct pci_bus *pci;
	uint32_t mask; /* bit d: PCI device d can come and go, as the guest's tables say */
	struct power *power;
	struct event_loop *loop;
	const struct log *log;
	/* May be called before there are vCPUs, and after. */
	void (*pause_vcpus)(void *opaque);
	void (*resume_vcpus)(void *opaque);
	/* Whether the guest can eject a device now: the machine is not paused. */
	bool (*guest_runs)(void *opaque);
	void *opaque;
};

int slots_create(const struct slots_config *config, struct slots **ret, struct err *err);
/* The vCPUs have been destroyed before, and all devices have left or were forgotten. NULL is fine. */
void slots_destroy(struct slots *slots);

/* ---- one thing at a time ---- */

enum slots_doing { SLOTS_ADDING, SLOTS_REMOVING, SLOTS_CHANGING };

struct slots_job {
	enum slots_doing doing;
	const char *id; /* of the device; valid until done */
	/* On a worker, which may wait; err is not NULL. */
	int (*work)(void *opaque, struct err *err);
	/* On the loop's thread, with work's result; the next job may begin here. err is not NULL. */
	void (*done)(void *opaque, int code, const struct err *err);
	void *opaque;
};

/* 0, or -EBUSY and why no device can be added, removed or changed now: a blocker is set, or that is being done. */
int slots_check_free(const struct slots *slots, struct err *err);
/* Starts a worker; done is called if this succeeds. -EBUSY: slots_check_free. */
int slots_begin(struct slots *slots, const struct slots_job *job, struct err *err);
/* The machine ends: waits for what is being done, and calls its done. */
void slots_finish(struct slots *slots);

/*
 * While a blocker is set, devices cannot be added, removed or changed: -EBUSY and why (not copied) as the message. The
 * guest is not asked to eject a device, and requests that it has not read are withdrawn: this is done when the blocker
 * is cleared (why NULL). Devices that the guest ejects meanwhile are then removed. -EBUSY: something is being done.
 */
int slots_set_blocker(struct slots *slots, const char *why, struct err *err);
/* While the vCPUs are paused. -EBUSY: the guest has ejected a device that has not been removed yet. */
int slots_check_present(const struct slots *slots, struct err *err);

/* ---- devices ---- */

/* How an operation ended: code 0 and err NULL, or -errno and the message. */
typedef void slots_done_fn(void *opaque, int code, const struct err *err);

/* How a kind of device leaves; one table for each kind. */
struct slot_ops {
	const char *kind; /* "vfio", for messages and commands */
	const char *noun; /* "host device" */
	/*
	 * Completes its requests, cancels none: 0; -EINPROGRESS: not yet, it is called again; or -errno, and the device
	 * stays. unsettle undoes it. NULL: there is nothing to complete.
	 */
	int (*settle)(void *opaque, struct err *err);
	void (*unsettle)(void *opaque);
	/*
	 * Of one that is settled, with settle: it goes on without what is behind it. It answers the guest, whose requests all
	 * fail, so that a driver can let go of it. -errno: it stays settled.
	 */
	int (*disconnect)(void *opaque, struct err *err);
	/* Takes it off the bus; the vCPUs are paused. */
	void (*detach)(void *opaque);
	/* On a worker, while the guest runs: what takes long. */
	void (*close)(void *opaque);
	/* Frees it. removed: the machine runs on without it, or reboots without it. */
	void (*gone)(void *opaque, bool removed);
};

/*
 * The devfn of a free slot, the highest: emulated devices fill the bus from below. One whose device the guest has lost by
 * force, and not ejected yet, comes last. -ENOSPC
 */
int slots_find_free(const struct slots *slots, const char *kind, const char *id, struct err *err);
/*
 * A device takes its place; id is copied. It need not be one for hot plug: then the device leaves only by force.
 */
int slots_add(struct slots *slots, const struct slot_ops *ops, void *opaque, const char *id, uint8_t devfn,
	      struct slot **ret, struct err *err);
/* The device is on the bus: notifies the guest. */
void slots_announce(struct slot *slot);
/* The device is destroyed by its owner, without ops. NULL is fine. */
void slots_forget(struct slot *slot);

/* The device of this kind with this id, as its ops know it; NULL: there is none. */
void *slots_find(const struct slots *slots, const struct slot_ops *ops, const char *id);

/*
 * Asks the guest to eject a device. done is called when it has left (code 0, err NULL), or after timeout_ms (-ETIMEDOUT
 * and the message; it stays). force: takes it away when it is settled, even if the guest uses it; one that can be
 * disconnected then leaves when the guest, which is asked, has ejected it, or after timeout_ms, while the machine is not
 * paused. -ENOENT; -EBUSY: the guest has already been asked, or slots_check_free; -EOPNOTSUPP: it can leave
 * only by force; done is not called then.
 */
int slots_remove(struct slots *slots, const struct slot_ops *ops, const char *id, bool force, unsigned int timeout_ms,
		 slots_done_fn *done, void *opaque, struct err *err);
/* The host wants a device back, and repeats that as long as it waits: the guest is asked each time. */
void slots_want(struct slot *slot);

/*
 * The machine ends; nothing is being done. leave_ejected removes what the guest has ejected. leave takes a device away,
 * settled or not, and waits for its worker; after a reboot, one whose removal was asked for is not there any more.
 */
void slots_leave_ejected(struct slots *slots);
void slots_leave(struct slot *slot);
bool slots_is_asked(const struct slot *slot);
