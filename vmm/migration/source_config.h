/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a migration's source: the machine behind a table of functions, and the request. See source.h. */
#pragma once

#include "core/guest_memory.h"
#include "core/log.h"
#include "core/state.h"
#include "vfio/migration.h"
#include "vmm/migration/disk_flusher.h"
#include "vmm/migration/disk_sender.h"
#include "vmm/migration/report.h"
#include "vmm/migration/request.h"

/* What the source calls of a machine, on the migration's thread. */
struct migration_machine_ops {
	/* From now until end nothing is plugged in or out. *offer (the caller's) is the payload of OFFER. */
	int (*begin)(void *machine, char **offer, struct err *err);
	void (*end)(void *machine);
	struct guest_memory *(*memory)(void *machine);
	struct dirty_set *(*dirty)(void *machine);
	/* Starts and ends all dirty sources, including those of disks. */
	int (*track)(void *machine, struct err *err);
	void (*untrack)(void *machine);
	/* The same for all writable disks, which a snapshot copies; without memory. NULL: there are never any. */
	int (*track_disks)(void *machine, struct err *err);
	void (*untrack_disks)(void *machine);
	/* Stops the guest for that many percent of its time. */
	void (*throttle)(void *machine, unsigned int percent);
	/*
	 * Pauses the machine. -ESHUTDOWN with the reason if it has ended meanwhile; *stopped_at: when everything had
	 * stopped. If state is not NULL, the state is saved at once. After a failure the machine runs. -ETIMEDOUT: at
	 * the deadline (ms of monotonic_ms) its storage has not completed its requests; only the guest's I/O has
	 * waited.
	 */
	int (*pause)(void *machine, int64_t deadline, uint64_t *stopped_at, struct state_buffer *state,
		     struct err *err);
	void (*resume)(void *machine);
	int (*save)(void *machine, struct state_buffer *out, struct err *err);
	/* The host devices, from begin to end, in the same order as on the target. NULL: there are never any. */
	size_t (*devices)(void *machine, struct vfio_migration *const **ret);
	const char *(*device_id)(void *machine, size_t index); /* for a snapshot: of that one; lives until end */
	/* The devices start to provide their state and continue to work. */
	int (*start_devices)(void *machine, struct err *err);
	/* The vCPUs are stopped: stops the devices, which then write no memory. A failure has been undone. */
	int (*stop_devices)(void *machine, struct err *err);
	/* Returns the devices to the state before start_devices, from any state; before resume. */
	void (*run_devices)(void *machine);
	/* Bytes of memory in the last round because nothing reports what devices wrote there. */
	uint64_t (*untold)(void *machine);
	/* The disks to copy, from begin to end, in the order of the offer. NULL: there are never any. */
	size_t (*disks)(void *machine, const struct disk_copy **ret);
	/* The disks that both sides use, of which this one must flush what was written. NULL: there are never any. */
	size_t (*shared_disks)(void *machine, struct disk_shared ret[WIRE_MAX_DISKS]);
	/* The disks' locks. If they cannot be taken back, the guest must not continue. */
	void (*unlock_disks)(void *machine);
	int (*lock_disks)(void *machine, struct err *err);
};

struct migration_source_config {
	const struct migration_request *request; /* outlives the source */
	const struct migration_machine_ops *ops;
	void *machine;
	/* Progress; on the migration's thread. */
	void (*tell)(void *opaque, const struct migration_report *report);
	void *opaque;
	const struct log *log;
	const char *at; /* the path by which a unix: address is reached; outlives the source. NULL: its own */
	bool paused; /* the machine is paused, and stays so on the target */
	unsigned int silence_ms; /* time without a reply after which the peer counts as lost; 0: CHANNEL_SILENCE_MS */
};
