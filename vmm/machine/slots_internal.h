/* SPDX-License-Identifier: Apache-2.0 */
/* What slots_bus.c, slots_job.c and slots_leave.c share; only they include it. */
#pragma once

#include "vmm/machine/slots.h"

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
	bool by_force;         /* it was removed so, whether or not forced still waits */
	unsigned int eject_ms; /* then the time that the guest gets to eject it */
	struct slot *next;
};

/* What happens to the device that leaves, while it is on the bus. */
enum slots_phase {
	SLOTS_SETTLED,      /* nothing: none leaves, or it has left the bus */
	SLOTS_SETTLING,     /* its requests are completed */
	SLOTS_DISCONNECTED, /* they fail, and the guest is asked to eject it */
};

struct slots {
	struct slots_config config;
	uint32_t ejected; /* bit d: the guest has ejected device d; set by vCPUs, cleared by the loop */
	/* Bit d: device d was taken away by force, and the guest, which was told, has not ejected it yet. */
	uint32_t lost;
	struct event_source *eject, *worked;
	int eject_fd, worked_fd; /* eventfds; worked: the worker has ended */
	struct slot *first;
	const char *blocker; /* why devices cannot come, go or change now, or NULL */
	/* What is being done; id NULL: nothing. */
	struct slots_job job;
	struct crew *crew;    /* the worker; NULL: the loop did the work */
	struct slot *leaving; /* of that job, or NULL */
	enum slots_phase phase;
	struct event_source *phase_timer;
	int64_t phase_end, answer_by; /* of monotonic_ms(); the second: of a caller, while the guest is paused */
	bool disconnected; /* the device that leaves is */
};

/* ---- slots_job.c ---- */

/* The work of the job that was claimed, on a worker; the second without one. */
int slots_job_start(struct slots *slots, struct err *err);
int slots_job_work(void *opaque, unsigned int index, struct err *err);
/* Waits for it, and calls done. What the guest has ejected meanwhile leaves with the next turn of the loop. */
void slots_job_end(struct slots *slots);
/* How the loop hears of its end. */
void slots_job_on_worked(void *opaque, uint32_t events);

/* ---- slots_leave.c ---- */

enum slot_state slots_leave_next(const struct slot *slot, enum slot_event event);
/* What the guest has ejected, and how the loop hears of it. */
bool slots_leave_is_ejected(const struct slot *slot);
void slots_leave_clear_ejected(struct slots *slots, uint32_t devices);
void slots_leave_on_eject(void *opaque, uint32_t events);
void slots_leave_on_ejected(void *opaque, unsigned int device); /* on a vCPU's thread */
/* The guest has ejected the device, or it is removed by force; nothing else is being done. */
void slots_leave_begin(struct slot *slot);
/* Answers a caller who waits, if there is one. */
void slots_answer(const struct slot_remover *remover, int code, const struct err *err);
void slots_unlink(struct slot *slot);
void slots_free(struct slot *slot);
