/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine as the thread of its migration or snapshot sees it: the table of migration/source_config.h, whose calls are
 * served on the event loop's thread where they change the machine. The opaque pointer of the table is a struct
 * machine_on_loop, which its owner has initialized on the loop's thread (session/outgoing.c, session/snapshot_thread.c).
 */
#pragma once

#include "core/event_loop.h"
#include "core/log.h"
#include "vmm/machine/machine.h"
#include "vmm/migration/source_config.h"
#include "vmm/session/host_devices_migration.h"

struct machine_on_loop {
	struct event_loop *loop;
	const struct log *log;
	struct machine *machine;
	const char *name;         /* the machine's; outlives this */
	enum migration_copy copy; /* the disks that are copied */
	enum host_devices_purpose purpose;
	bool tells;               /* memory is read while the guest runs, so that it matters who reports writes */
	bool paused;              /* by the user: it is not resumed; init sets it */
	struct throttle *throttle;
	struct host_devices_migration *devices; /* from begin to end, and for longer if the owner takes it; or NULL */
	struct disk_copy disks[WIRE_MAX_DISKS]; /* that are copied, from begin to end */
	size_t disk_count;
};

extern const struct migration_machine_ops machine_on_loop_ops;

/* On the loop's thread. Completes it: loop, log, machine, name and copy are set. done frees what init and begin made. */
int machine_on_loop_init(struct machine_on_loop *on, struct err *err);
void machine_on_loop_done(struct machine_on_loop *on);

/* On the loop's thread: its host devices run again, then its vCPUs, unless the user had paused it. */
void machine_on_loop_run(struct machine_on_loop *on);
