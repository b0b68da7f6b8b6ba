/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration of host devices by version 2 of VFIO's protocol (<linux/vfio.h>, enum vfio_device_mig_state): the device
 * state is read on the source, first while the device runs (PRE_COPY, if supported), then stopped (STOP_COPY), and
 * written into a device of the same kind on the target (RESUMING). The bytes are opaque: one stream, in pieces of any
 * size.
 *
 *	source                                          target
 *	vfio_migration_create                           vfio_migration_create
 *	vfio_migration_group_check                      vfio_migration_group_check, vfio_migration_compare
 *	vfio_migration_start                            vfio_migration_load
 *	  read until -EAGAIN, pending, each round         write, write, ...
 *	vCPUs stop
 *	vfio_migration_group_stop
 *	the last collect of dirty pages
 *	  read until 0                                  vfio_migration_loaded, then the PCI function's own state
 *	                                                vfio_migration_group_run, vCPUs start
 *	vfio_migration_destroy                          vfio_migration_destroy
 *
 * After any failure, on either side, vfio_migration_group_run makes each device RUNNING again: by arcs of the protocol
 * if they lead there, else by a reset, which it logs. Nothing here changes a device's state in a way that this function
 * cannot undo.
 *
 * One thread may read (write) a device while another one asks for the pending bytes or changes states: each device has
 * a lock. All other calls come from one thread.
 */
#pragma once

#include "vfio/device.h"

struct vfio_migration;

/* ---- What a device can do ---- */

/* What must match on both hosts. From the config region, which mediated devices have too. */
struct vfio_migration_identity {
	uint16_t vendor, device;
	uint16_t subsystem_vendor, subsystem;
	uint32_t class_code; /* 24 bits */
	uint8_t revision;
	uint32_t flags;      /* VFIO_MIGRATION_*; 0: it cannot migrate */
	uint32_t iommu;      /* enum host_iommu_type of the IOMMU behind it; HOST_IOMMU_NONE for a mediated device */
};

/* Works for devices that cannot migrate, too. -EIO: config space cannot be read. */
int vfio_migration_identity(const struct vfio_device *device, struct vfio_migration_identity *ret, struct err *err);

/*
 * Whether the target's device can load the state of the source's: 0, or -ENODEV with a message that names what differs
 * and both values. The target may have more flags than the source. An unknown IOMMU matches any.
 */
int vfio_migration_compare(const struct vfio_migration_identity *source, const struct vfio_migration_identity *target,
			   struct err *err);

/* VFIO_MIGRATION_* of the device; 0: its driver cannot migrate it. */
uint32_t vfio_migration_flags(const struct vfio_device *device);
/* "no", "stop-copy", "stop-copy, p2p", "pre-copy", "pre-copy, p2p". */
const char *vfio_migration_flags_name(uint32_t flags);

/* ---- Life cycle ---- */

/*
 * -ENOTSUP: the device's driver cannot migrate it. -EIO: it was not RUNNING and a reset did not help. The device
 * outlives the object.
 */
int vfio_migration_create(const struct vfio_device *device, struct vfio_migration **ret, struct err *err);
/* Resets a device that is not RUNNING (its state has moved away or did not arrive): not all drivers do that when it is
 * closed. NULL is fine. */
void vfio_migration_destroy(struct vfio_migration *migration);

const struct vfio_device *vfio_migration_device(const struct vfio_migration *migration);

/* enum vfio_device_mig_state as of the last change. */
uint32_t vfio_migration_state(struct vfio_migration *migration);

/* ---- The source ---- */

/* Whether its state can be read while it runs (PRE_COPY). */
bool vfio_migration_precopies(const struct vfio_migration *migration);

/* Enters PRE_COPY if the device supports it: it runs on and its state can be read. Else does nothing. */
int vfio_migration_start(struct vfio_migration *migration, struct err *err);

struct vfio_migration_pending {
	uint64_t initial;   /* bytes of PRE_COPY to read before the switchover; 0: it may come */
	uint64_t dirty;     /* further bytes of PRE_COPY that can be read now */
	uint64_t stop_copy; /* an estimate of the bytes to read after a stop now */
	bool stop_known;    /* false: the kernel gives no such estimate; stop_copy is initial + dirty */
};

/*
 * The bytes still to be read. While initial is not 0, a switchover would not be short; it may grow again when the guest
 * sets the device up anew (VFIO_PRECOPY_INFO_REINIT). After a stop initial and dirty are 0. Some drivers look for new
 * dirty bytes only when asked: call it once a round.
 */
int vfio_migration_pending(struct vfio_migration *migration, struct vfio_migration_pending *ret, struct err *err);

/*
 * Reads the next 1 to len bytes of the state. 0: the end (only after the stop). -EAGAIN without a message: nothing for
 * now; before the stop always so without PRE_COPY. -ECANCELED: not started, or ended by vfio_migration_group_run. Does
 * not wait for data, but a device may be slow to give it.
 */
ssize_t vfio_migration_read(struct vfio_migration *migration, void *buf, size_t len, struct err *err);

/* After -EAGAIN: waits for data, at most timeout_ms. Waits that long if the driver has no poll. */
void vfio_migration_wait(struct vfio_migration *migration, int timeout_ms);

/* ---- The target ---- */

/* Stops the device and prepares it for vfio_migration_write. */
int vfio_migration_load(struct vfio_migration *migration, struct err *err);

/* Writes all of buf, as fast as the device takes it. */
int vfio_migration_write(struct vfio_migration *migration, const void *buf, size_t len, struct err *err);

/*
 * At the end of the stream: the device checks and loads what was written and enters STOP, in which the PCI function's
 * own state can be loaded; vfio_migration_group_run makes it run. A device that refuses the state can only be reset.
 */
int vfio_migration_loaded(struct vfio_migration *migration, struct err *err);

/* ---- All devices of a machine ---- */

/*
 * Whether the devices can migrate together: 0, or -ENOTSUP with the reason and *which, the first that cannot. If there
 * are several, each must be able to stop its traffic to the others (VFIO_MIGRATION_P2P), else it could write into one
 * that has been stopped.
 */
int vfio_migration_group_check(struct vfio_migration *const *group, size_t count, size_t *which, struct err *err);

/*
 * The vCPUs are stopped. All devices stop their traffic to each other, then all stop: no device writes to memory any
 * more, the dirty logs can be collected for the last time, and the device states can be read to the end. On failure all
 * are RUNNING again, as by vfio_migration_group_run.
 */
int vfio_migration_group_stop(struct vfio_migration *const *group, size_t count, struct err *err);

/*
 * Makes all devices run, from any state: first all without traffic to each other, then all RUNNING. A device that
 * cannot get there (ERROR, or half a state) is reset, and a line says that its guest must set it up anew. Devices whose
 * reset fails too are left as they are: -EIO with a message for the first of them.
 */
int vfio_migration_group_run(struct vfio_migration *const *group, size_t count, struct err *err);

/* The device has been reset since vfio_migration_create: the guest's setup of it is lost. */
bool vfio_migration_was_reset(const struct vfio_migration *migration);
/* It could neither run nor be reset: the guest cannot use it any more. */
bool vfio_migration_is_lost(const struct vfio_migration *migration);
