/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of a machine's host devices in a snapshot: read from all devices in parallel, as a migration does it
 * (migration/device_sender.h), and kept in this process until they are written; or given to the devices of a machine
 * that is restored.
 *
 *	snapshot_take.c: create, [start, costs each round,] vCPUs stop, stop, memory is written, read, run, add, destroy
 *	session_restore.c: load, then the PCI functions' own states, then vfio_migration_group_run
 *
 * All calls for one machine come from one thread.
 */
#pragma once

#include "vmm/migration/loop.h"
#include "vmm/migration/source_config.h"
#include "vmm/snapshot/state_file.h"

/* Of all devices of a machine together: this much is held in memory, twice when it is written. */
#define SNAPSHOT_MAX_DEVICES GIB(3)

struct snapshot_devices;

struct snapshot_devices_options {
	const struct migration_machine_ops *ops; /* the machine's, after its begin and until its end */
	void *machine;
	uint64_t limit; /* of the bytes of all states; SNAPSHOT_MAX_DEVICES */
	int cancel_fd;  /* readable: the wait for a state ends with -ECANCELED */
	int (*tick)(void *opaque, struct err *err); /* several times a second meanwhile; nonzero ends it */
	void *opaque;
};

/*
 * Nothing happens to the devices yet. *ret is NULL if there are none, with which all calls do nothing. -E2BIG: too many
 * devices; -EFBIG: a device already says that its state is too large.
 */
int snapshot_devices_create(const struct snapshot_devices_options *options, struct snapshot_devices **ret,
			    struct err *err);
/* Devices that were stopped run first: snapshot_devices_run. NULL is fine. */
void snapshot_devices_destroy(struct snapshot_devices *devices);

/* For a live snapshot: devices that can do so give their state while they run. */
int snapshot_devices_start(struct snapshot_devices *devices, struct err *err);
/* After start: what the devices add to the pause. An error is the failure of a device. */
int snapshot_devices_costs(struct snapshot_devices *devices, struct migration_costs *costs, struct err *err);

/* The vCPUs are stopped: stops the devices, which then write no memory, and begins to read their states. */
int snapshot_devices_stop(struct snapshot_devices *devices, struct err *err);
/* Waits until all states have been read to the end. */
int snapshot_devices_read(struct snapshot_devices *devices, struct err *err);
/* Before the vCPUs continue: the devices run as before start or stop. What has been read is kept. */
void snapshot_devices_run(struct snapshot_devices *devices);
/* Enters the states into state; the bytes stay this object's. */
void snapshot_devices_add(const struct snapshot_devices *devices, struct snapshot_state *state);

/*
 * Gives each device of the group its state, all in parallel; id(opaque, i) is the id of device i. Then all are stopped
 * and have accepted it. -EBADMSG: the snapshot has other devices than the machine; -ECANCELED: cancel_fd was readable
 * (-1: none). After a failure the devices can only be reset, as vfio_migration_destroy does it.
 */
int snapshot_devices_load(const struct snapshot_state *state, struct vfio_migration *const *group, size_t count,
			  const char *(*id)(const void *opaque, size_t index), const void *opaque, int cancel_fd,
			  struct err *err);
