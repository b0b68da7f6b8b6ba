/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration tells those who wait for it: where it stands, how it goes, and how it ended. */
#pragma once

#include "vmm/migration/loop.h"

#include <jansson.h>

enum migration_state {
	MIGRATION_NONE,       /* there was none */
	MIGRATION_CONNECTING, /* and the target makes its machine */
	MIGRATION_MEMORY,     /* rounds of memory, the guest runs here */
	MIGRATION_SWITCHING,  /* it stands still */
	MIGRATION_DONE,       /* it runs there */
	MIGRATION_FAILED,     /* it goes on here */
	MIGRATION_UNRESOLVED, /* it stands here; whether it runs there is not known */
};

/* What the downtime is made of, one after the other. */
enum migration_step {
	MIGRATION_STEP_PAUSE,   /* vCPUs and devices come to rest */
	MIGRATION_STEP_DEVICES, /* host devices do */
	MIGRATION_STEP_COLLECT, /* what was written last is asked for */
	MIGRATION_STEP_MEMORY,  /* and sent, as is what is in host devices */
	MIGRATION_STEP_SAVE,    /* the machine's state is taken down */
	MIGRATION_STEP_LOAD,    /* from there until the target says that it has all */
	MIGRATION_STEP_UNLOCK,  /* the disks' locks are given up */
	MIGRATION_STEP_START,   /* from GO to RUNNING */
	MIGRATION_STEPS,
};

struct migration_report {
	enum migration_state state;
	struct migration_progress progress;
	uint64_t disk_left, disk_sent; /* bytes of disks, which are in progress.left and sent too */
	uint64_t downtime; /* ns, from the order to stop until the target said that it runs; when it is done */
	uint64_t stall;    /* ns that no vCPU ran, on either side; 0 where none ran before */
	bool zero_copy;    /* the kernel read memory where it lies, on one stream at least */
	bool paused;       /* none did: the machine was paused, and is so there */
	uint64_t expected[MIGRATION_STEPS]; /* ns of each beside what memory and host devices send, as rehearsed in this run */
	uint64_t steps[MIGRATION_STEPS]; /* ns each; their sum is the downtime */
	uint64_t target_load, target_start; /* ns of these two that the target was at work; the rest is the way there and back */
	char text[512];    /* why it failed, or what is to be resolved; or "" */
};

/* A Migration of the control interface; NULL when there is no memory. */
json_t *migration_report_json(const struct migration_report *report);
