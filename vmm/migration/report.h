/* SPDX-License-Identifier: Apache-2.0 */
/* The state, progress and result of a migration, for those who wait for it. */
#pragma once

#include "vmm/migration/loop.h"

#include <jansson.h>

enum migration_state {
	MIGRATION_NONE,       /* there was no migration */
	MIGRATION_CONNECTING, /* until the target has made its machine */
	MIGRATION_MEMORY,     /* rounds of memory; the guest runs here */
	MIGRATION_SWITCHING,  /* the guest is paused */
	MIGRATION_DONE,       /* the guest runs on the target */
	MIGRATION_FAILED,     /* the guest continues here */
	MIGRATION_UNRESOLVED, /* the guest is paused here; whether it runs on the target is not known */
};

/* The steps of the downtime, in their order. */
enum migration_step {
	MIGRATION_STEP_PAUSE,   /* vCPUs and devices stop */
	MIGRATION_STEP_DEVICES, /* host devices stop */
	MIGRATION_STEP_COLLECT, /* the last dirty pages are collected */
	MIGRATION_STEP_MEMORY,  /* they are sent, and the device state of host devices */
	MIGRATION_STEP_SAVE,    /* the machine's state is saved */
	MIGRATION_STEP_LOAD,    /* from then until the target's LOADED */
	MIGRATION_STEP_UNLOCK,  /* the disks are unlocked */
	MIGRATION_STEP_START,   /* from GO to RUNNING */
	MIGRATION_STEPS,
};

struct migration_report {
	enum migration_state state;
	struct migration_progress progress;
	uint64_t disk_left, disk_sent; /* bytes of disks; also part of progress.left and sent */
	uint64_t downtime; /* ns, from the order to pause until the target's RUNNING; valid in MIGRATION_DONE */
	uint64_t stall;    /* ns for which no vCPU ran, on either side; 0 if the machine was paused before */
	bool zero_copy;    /* the kernel sent memory without a copy, on at least one stream */
	bool paused;       /* the machine was paused before, and is paused on the target */
	uint64_t expected[MIGRATION_STEPS]; /* ns of each step without memory and host devices, from the rehearsal */
	uint64_t steps[MIGRATION_STEPS]; /* ns of each step; their sum is the downtime */
	uint64_t target_load, target_start; /* ns that the target needed; the rest is the round trip */
	char text[512];    /* why it failed, or how to resolve it; or "" */
};

/* "memory", as in the JSON. */
const char *migration_state_word(enum migration_state state);

/* The type Migration of the control interface; NULL if there is no memory. */
json_t *migration_report_json(const struct migration_report *report);
