/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The migration of all host devices of a machine, on source and target: vfio/migration.h for each device, ordered by
 * id, which is the same order on both hosts. While it exists no device is added or removed.
 *
 *	source: begin, start, each device read by a thread of its own, vCPUs stop, stop, ... end
 *	target: begin, vfio_migration_load and _write for each, vfio_migration_loaded, run, end
 *
 * begin, run and end are called on the loop's thread, start and stop on any. After a failure, run restarts the devices.
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/machine/host_devices.h"

struct host_devices_migration;

/* For whom, in messages: a snapshot is a migration to files, and a restore one from them. */
enum host_devices_purpose { HOST_DEVICES_MIGRATE, HOST_DEVICES_SNAPSHOT };

/*
 * -ENOTSUP if a device cannot be migrated, or not together with the others: the message names it and the command to
 * type; machine is the machine's name in it.
 */
int host_devices_migration_begin(struct host_devices *devices, const char *machine, enum host_devices_purpose purpose,
				 struct host_devices_migration **ret, struct err *err);
/* Leaves the devices in their current states. NULL is fine. */
void host_devices_migration_end(struct host_devices_migration *migration);

/* Lives as long as the device. */
const char *host_devices_migration_id(const struct host_devices_migration *migration, size_t index);
/* All devices; returns their number. */
size_t host_devices_migration_group(const struct host_devices_migration *migration, struct vfio_migration *const **ret);

/*
 * Bytes of guest memory that are sent after the stop because nothing reports what devices wrote there; *id is the
 * device that causes it, or NULL.
 */
uint64_t host_devices_migration_untold(const struct host_devices_migration *migration, const char **id);

/* Devices that can do so start to provide their state while they run. After a failure all run as before. */
int host_devices_migration_start(struct host_devices_migration *migration, struct err *err);
/* The vCPUs are stopped: vfio_migration_group_stop. */
int host_devices_migration_stop(struct host_devices_migration *migration, struct err *err);
/*
 * Call before the vCPUs continue: vfio_migration_group_run. A device that neither runs nor can be reset is fenced, and
 * the guest continues without it; the error is -EIO.
 */
int host_devices_migration_run(struct host_devices_migration *migration, struct err *err);

/* For the target, after run: -EIO if a device had to be reset and lost the state. The source's device still has it. */
int host_devices_migration_check_whole(const struct host_devices_migration *migration, struct err *err);
