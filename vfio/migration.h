/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration of host devices by version 2 of VFIO's protocol (<linux/vfio.h>, enum vfio_device_mig_state): what is in
 * a device is read out of it, first while it runs (PRE_COPY, where it can), then stopped (STOP_COPY), and is written
 * into its like on the other host (RESUMING). The bytes are the device's own affair: one stream, whose order matters
 * and whose pieces do not.
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
 * Whatever fails, on either side, vfio_migration_group_run is the way back: it leaves each device RUNNING, by the arcs
 * of the protocol where they lead there, else by a reset, which it says. Nothing here changes a device's state in a way
 * that this function cannot undo.
 *
 * A device may be read (written) by a thread of its own while another one asks for what is pending or changes states:
 * one lock a device. Everything else comes from one thread.
 */
#pragma once

#include "vfio/device.h"

struct vfio_migration;

/* ---- What a device can do ---- */

/* What must be the same, or as good, on both hosts. From the config region, which mediated devices have too. */
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
 * Whether a state of the source's device fits the target's: 0, or -ENODEV with a sentence that names what differs and
 * both values. The target may offer more flags than the source has. An IOMMU that one side does not know is no
 * difference.
 */
int vfio_migration_compare(const struct vfio_migration_identity *source, const struct vfio_migration_identity *target,
			   struct err *err);

/* VFIO_MIGRATION_* of the device; 0: its driver cannot migrate it. */
uint32_t vfio_migration_flags(const struct vfio_device *device);
/* "no", "stop-copy", "stop-copy, p2p", "pre-copy", "pre-copy, p2p". */
const char *vfio_migration_flags_name(uint32_t flags);

/* ---- Its life ---- */

/*
 * -ENOTSUP: the device's driver cannot migrate it. -EIO: it was left in another state than RUNNING, from which a reset
 * does not bring it back. The device outlives what is made here.
 */
int vfio_migration_create(const struct vfio_device *device, struct vfio_migration **ret, struct err *err);
/* A device that is not RUNNING, because its state is elsewhere now or never came, is reset: not all drivers do that when
 * it is closed, and whoever opens it next finds it as it should be. NULL is fine. */
void vfio_migration_destroy(struct vfio_migration *migration);

const struct vfio_device *vfio_migration_device(const struct vfio_migration *migration);

/* enum vfio_device_mig_state as of the last change. */
uint32_t vfio_migration_state(struct vfio_migration *migration);

/* ---- The source ---- */

/* It can give its state while it runs. */
bool vfio_migration_precopies(const struct vfio_migration *migration);

/* The device goes on running and begins to give its state, where it can do both; else nothing is done. */
int vfio_migration_start(struct vfio_migration *migration, struct err *err);

struct vfio_migration_pending {
	uint64_t initial;   /* bytes of PRE_COPY that should be over before the switchover; 0: it may come */
	uint64_t dirty;     /* further bytes of PRE_COPY that could be read now */
	uint64_t stop_copy; /* an estimate of what would be read after a stop now, in bytes */
	bool stop_known;    /* false: the kernel gives no such estimate; stop_copy is what is known: initial + dirty */
};

/*
 * What is still to come. While initial is not 0 the target is not ready for a short switchover; it may rise again when
 * the device is set up anew (VFIO_PRECOPY_INFO_REINIT). After a stop initial and dirty are 0. Asking is also what makes
 * some drivers look for new dirty bytes: once a round.
 */
int vfio_migration_pending(struct vfio_migration *migration, struct vfio_migration_pending *ret, struct err *err);

/*
 * The next bytes of the state, 1 to len of them. 0: that was all (only after the stop). -EAGAIN without a sentence:
 * nothing for now; always so until the stop where the device cannot do this while it runs. -ECANCELED: not started, or
 * ended by vfio_migration_group_run. Does not wait for the device to have something; what it has it may give slowly.
 */
ssize_t vfio_migration_read(struct vfio_migration *migration, void *buf, size_t len, struct err *err);

/*
 * After -EAGAIN: waits until there may be something to read, at most timeout_ms. Devices that cannot tell (no poll in
 * their driver) are waited for that long.
 */
void vfio_migration_wait(struct vfio_migration *migration, int timeout_ms);

/* ---- The target ---- */

/* The device stops and takes a state: vfio_migration_write. */
int vfio_migration_load(struct vfio_migration *migration, struct err *err);

/* All of buf. Slow devices take their time. */
int vfio_migration_write(struct vfio_migration *migration, const void *buf, size_t len, struct err *err);

/*
 * The stream has ended: the device checks and takes over what was written, and stands in STOP, where the PCI function's
 * own state can be loaded; vfio_migration_group_run makes it run. A device that refuses is only good for a reset.
 */
int vfio_migration_loaded(struct vfio_migration *migration, struct err *err);

/* ---- All devices of a machine ---- */

/*
 * Can they be moved together? -ENOTSUP with the reason, and *which is the first that stands in the way: with more than one,
 * each must be able to hold back the traffic between devices (VFIO_MIGRATION_P2P), or one would write into another that
 * has been stopped.
 */
int vfio_migration_group_check(struct vfio_migration *const *group, size_t count, size_t *which, struct err *err);

/*
 * The vCPUs are stopped. All devices stop their traffic to each other, then all stop and can be read to the end: when
 * this returns no device writes to memory any more, and their dirty logs can be collected for the last time. On failure
 * the reason is given and all are RUNNING again, as by vfio_migration_group_run.
 */
int vfio_migration_group_stop(struct vfio_migration *const *group, size_t count, struct err *err);

/*
 * Makes all devices run, from whatever state they are in: all up to where they may not yet reach each other, then all
 * RUNNING. One that cannot get there (ERROR, or a state half loaded) is reset, and a line says that its guest must set
 * it up anew. Those for which that fails as well are left as they are: the first of them is the sentence, -EIO.
 */
int vfio_migration_group_run(struct vfio_migration *const *group, size_t count, struct err *err);

/* The device has been reset since vfio_migration_create: what the guest had made of it is gone. */
bool vfio_migration_was_reset(const struct vfio_migration *migration);
/* It could neither run nor be reset: it is no longer of use to the guest. */
bool vfio_migration_is_lost(const struct vfio_migration *migration);
