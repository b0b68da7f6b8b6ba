/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration between two simulated machines, in this process: source.c and target.c with real connections between them, which
 * go through a proxy that can cut or stall them. A machine is memory, a thread that writes to it while it runs, and one disk that
 * only one machine can have; if wanted also host devices, of the fake kernel, and a disk whose content goes along.
 */
#pragma once

#include "vmm/migration/source.h"
#include "vmm/migration/target.h"

/* Where something is made to fail; -EIO with "FAILURE fails". */
enum rig_failure {
	RIG_NONE, RIG_OFFER, RIG_TRACK, RIG_COLLECT, RIG_PAUSE, RIG_SAVE, RIG_CREATE, RIG_TRY, RIG_LOAD, RIG_LOCK,
	RIG_START, RIG_FAILURES,
	/* of host devices, with words of their own */
	RIG_DEVICE_START = RIG_FAILURES, RIG_DEVICE_STOP, RIG_DEVICE_READ, RIG_DEVICE_WRITE, RIG_DEVICE_STATE, RIG_ALL_FAILURES,
	/* of the disk that goes along, likewise */
	RIG_DISK_READ, RIG_DISK_WRITE,
};

struct rig_options {
	enum rig_failure fail;
	uint64_t cut_after; /* bytes that the proxy lets through, all connections and directions together; 0: no proxy */
	bool stall;         /* from there on it takes nothing and closes nothing */
	uint64_t cancel_us; /* after that time the source is cancelled; 0: never */
	uint64_t end_us;    /* after that time the target is; 0: never */
	bool idle;          /* the guest writes nothing */
	bool by_fd;         /* over a socketpair that was handed in */
	bool devices;       /* two host devices on either side */
	bool disks;         /* a disk goes along */
	struct migration_request request; /* goal and streams; the rest is the rig's */
};

struct rig_result {
	struct migration_report source;
	int target; /* what its run returned */
	struct err target_err;
	bool source_runs, target_runs;
	unsigned int most_running; /* machines at one time */
	bool same;     /* the target's memory and disk when it started were the source's when it stopped */
	bool disk_free; /* nobody has it */
	bool devices_right; /* RUNNING with what was in them where the guest runs; stopped, and still whole, where nobody decided yet */
	uint64_t passed; /* bytes through the proxy */
	unsigned int tells, tries;
};

void rig_run(const struct rig_options *options, struct rig_result *result);

const char *rig_failure_text(enum rig_failure failure);
