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
	bool drips;         /* instead, from there on all but the control connection get on slowly */
	uint64_t cancel_us; /* after that time the source is cancelled; 0: never */
	uint64_t end_us;    /* after that time the target is; 0: never */
	bool idle;          /* the guest writes nothing */
	bool by_fd;         /* over a socketpair that was handed in */
	bool devices;       /* two host devices on either side */
	bool disks;         /* a disk goes along */
	enum rig_failure hang; /* where the target is alive and does not get on, until the source has done something about it */
	unsigned int silence_ms; /* 0: as usual */
	unsigned int pause_us;      /* how long the source's devices take to stop; from slow_pause on, which counts from 1 */
	unsigned int slow_pause;
	bool shared;        /* a disk that both use has to be flushed */
	unsigned int flush_us;
	enum { RIG_FLUSHES, RIG_FLUSH_FAILS, RIG_LAST_FLUSH_FAILS, RIG_FLUSH_HANGS } flush; /* hangs: until the migration has ended */
	void (*play)(const char *to); /* the source's part, instead of source.c */
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
	unsigned int pauses;  /* of the source */
	uint64_t stood;       /* ns; the longest pause of a guest that went on at the source */
	unsigned int flushes; /* of the shared disk */
	bool flushed;         /* since the source's guest stopped, when the disk was left */
};

void rig_run(const struct rig_options *options, struct rig_result *result);

const char *rig_failure_text(enum rig_failure failure);
