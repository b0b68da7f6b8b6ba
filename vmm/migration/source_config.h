/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration's source is made with: the machine behind a table of functions, and what it is to do with it. See source.h. */
#pragma once

#include "core/guest_memory.h"
#include "core/log.h"
#include "core/state.h"
#include "vfio/migration.h"
#include "vmm/migration/disk_sender.h"
#include "vmm/migration/report.h"
#include "vmm/migration/request.h"

/* What the source wants of a machine; called on the migration's thread. */
struct migration_machine_ops {
	/* From now until end it keeps its shape: nothing is plugged in or out. *offer (the caller's) is what OFFER carries. */
	int (*begin)(void *machine, char **offer, struct err *err);
	void (*end)(void *machine);
	struct guest_memory *(*memory)(void *machine);
	struct dirty_set *(*dirty)(void *machine);
	/* Starts and ends every dirty source, disks' too. */
	int (*track)(void *machine, struct err *err);
	void (*untrack)(void *machine);
	/* The guest may run so many percent less of its time. */
	void (*throttle)(void *machine, unsigned int percent);
	/*
	 * -ESHUTDOWN with the reason when it has come to an end meanwhile; *stopped_at is when all of it had stopped. Where state is
	 * not NULL it is saved at once. On failure the machine runs.
	 */
	int (*pause)(void *machine, uint64_t *stopped_at, struct state_buffer *state, struct err *err);
	void (*resume)(void *machine);
	int (*save)(void *machine, struct state_buffer *out, struct err *err);
	/* Its host devices, from begin to end, in an order that is the same on the target. NULL: it never has any. */
	size_t (*devices)(void *machine, struct vfio_migration *const **ret);
	/* They begin to give their state and go on working. */
	int (*start_devices)(void *machine, struct err *err);
	/* The guest stands: so do they then, and write to memory no more. A failure has undone it. */
	int (*stop_devices)(void *machine, struct err *err);
	/* As before start_devices, whatever has been since; before resume. */
	void (*run_devices)(void *machine);
	/* Bytes of memory that the last round holds because nobody can tell what devices wrote there. */
	uint64_t (*untold)(void *machine);
	/* The disks whose content goes along, from begin to end, in the order of the offer. NULL: none ever does. */
	size_t (*disks)(void *machine, const struct disk_copy **ret);
	/* The disks' locks; taking them back may fail, and then the guest must not go on. */
	void (*unlock_disks)(void *machine);
	int (*lock_disks)(void *machine, struct err *err);
};

struct migration_source_config {
	const struct migration_request *request; /* outlives the source */
	const struct migration_machine_ops *ops;
	void *machine;
	/* How it goes; on the migration's thread. */
	void (*tell)(void *opaque, const struct migration_report *report);
	void *opaque;
	const struct log *log;
	bool paused; /* it stands already, and will there */
	unsigned int silence_ms; /* after which the peer is given up; 0: CHANNEL_SILENCE_MS */
};
