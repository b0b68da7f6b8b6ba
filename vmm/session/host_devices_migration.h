/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host devices of a machine on their way to another host (or from one): vfio/migration.h for all of them, by their
 * ids, in whose order they are on both hosts. While it exists no device comes or goes.
 *
 *	source: begin, start, each device read by a thread of its own, vCPUs stop, stop, ... end
 *	target: begin, vfio_migration_load and _write for each, vfio_migration_loaded, run, end
 *
 * begin, run and end come from the loop's thread; start and stop from any. Whatever fails, run is the way back.
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/machine/host_devices.h"

struct host_devices_migration;

/*
 * -ENOTSUP when a device cannot be moved, or not beside the others: the sentence names it and what to type, where machine
 * is the machine's name.
 */
int host_devices_migration_begin(struct host_devices *devices, const char *machine, struct host_devices_migration **ret,
				 struct err *err);
/* Leaves the devices in the states they are in. NULL is fine. */
void host_devices_migration_end(struct host_devices_migration *migration);

const char *host_devices_migration_id(const struct host_devices_migration *migration, size_t index);
/* All of them; how many. */
size_t host_devices_migration_group(const struct host_devices_migration *migration, struct vfio_migration *const **ret);

/*
 * Bytes of guest memory that will be sent after the stop because nobody can tell what devices wrote there; *id is the
 * device to blame, or NULL.
 */
uint64_t host_devices_migration_untold(const struct host_devices_migration *migration, const char **id);

/* All devices begin to give their state, those that can do that while they run. On failure all run as before. */
int host_devices_migration_start(struct host_devices_migration *migration, struct err *err);
/* The vCPUs are stopped: vfio_migration_group_stop. */
int host_devices_migration_stop(struct host_devices_migration *migration, struct err *err);
/*
 * Before the vCPUs go on: vfio_migration_group_run. A device that neither runs nor can be reset is cut off, so that the
 * guest can go on without it; that is said, by the sentence and -EIO.
 */
int host_devices_migration_run(struct host_devices_migration *migration, struct err *err);

/* For the target, after run: -EIO when a device had to be reset, so that what came is not in it any more. The source's still has
 * it. */
int host_devices_migration_check_whole(const struct host_devices_migration *migration, struct err *err);
