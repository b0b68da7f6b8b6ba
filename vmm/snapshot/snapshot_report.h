/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asks of a snapshot, and its progress and result for those who wait for it. */
#pragma once

#include "vmm/migration/loop.h"

#include <jansson.h>

#define SNAPSHOT_AIM 5000000ull /* ns; a live snapshot's pause, if the guest lets it be so short */

/* Writable disks: kept as a reflink, or a copy, or not at all. */
enum snapshot_disks { SNAPSHOT_DISKS_REFLINK, SNAPSHOT_DISKS_COPY, SNAPSHOT_DISKS_NONE };

struct snapshot_request {
	bool diff; /* only what has changed since the parent */
	bool live; /* memory is written while the guest runs */
	bool track; /* what the guest changes from now on is kept track of, for diffs */
	bool stop; /* the machine ends when the snapshot is complete */
	enum snapshot_disks disks;
	struct migration_goal goal; /* of a live one; its downtime is the pause */
};

enum snapshot_phase {
	SNAPSHOT_NONE,    /* there was no snapshot */
	SNAPSHOT_ROUNDS,  /* the guest runs; also before the first round */
	SNAPSHOT_PAUSED,  /* the guest is paused */
	SNAPSHOT_CLOSING, /* the guest runs again, unless the machine is to end */
	SNAPSHOT_WRITTEN, /* everything is in the files, and the asker has to commit */
	SNAPSHOT_DONE,
	SNAPSHOT_FAILED,
};

struct snapshot_report {
	enum snapshot_phase phase;
	struct migration_progress progress; /* of the rounds */
	uint8_t id[16], parent[16];         /* valid in WRITTEN and DONE */
	uint64_t memory;  /* bytes of RAM, or of a diff's pages when they are known */
	uint64_t content; /* bytes of it that have been written */
	uint64_t passed;  /* bytes of it that have been looked at, of a snapshot that is not live */
	uint64_t disk_left; /* bytes of disks that are still to be copied, while the guest runs */
	uint64_t elapsed; /* ns */
	uint64_t pause;   /* ns for which the guest could not run; 0 if the machine was paused before */
	bool reflinks;    /* kernel and initrd are kept beside it */
	char text[512];   /* why it failed, or "" */
	bool no_space;    /* it failed since there is no room for a file */
};

/* "paused", as in the JSON. */
const char *snapshot_phase_word(enum snapshot_phase phase);

/* The type Snapshot of the control interface; NULL if there is no memory. */
json_t *snapshot_report_json(const struct snapshot_report *report);

/* The parameters of the method Snapshot but for files; NULL if there is no memory. */
json_t *snapshot_request_to_json(const struct snapshot_request *request);
/* NULL, or the name of an invalid parameter. Members that are missing get their defaults; others are ignored. */
const char *snapshot_request_from_json(const json_t *parameters, struct snapshot_request *ret);

/* The words of `disks` in the order of the enum, with a NULL at the end. */
extern const char *const snapshot_disks_words[];
