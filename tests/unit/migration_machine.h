/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated machines of migration_rig: memory that a guest writes to, disks, host devices of the fake kernel, and the
 * operations that source.c and target.c call.
 */
#pragma once

#include "tests/unit/migration_rig.h"

#include <pthread.h>

#include "core/bitmap.h"
#include "tests/unit/fake_vfio.h"
#include "vfio/device.h"

#define LOW_SIZE MIB(5)
#define HIGH_SIZE MIB(3)
#define HIGH GIB(4)
#define DEVICES 2
#define DISK (MIB(4) + 512)
#define GRANULES (DISK / DISK_GRANULE + 1)

struct rig;

struct fake {
	struct rig *rig;
	struct guest_memory *memory;
	struct dirty_set dirty;
	struct dirty_source failing;
	void *low, *high;
	pthread_t thread;
	pthread_mutex_t lock; /* held while the guest writes */
	bool running, over;
	/* host devices */
	struct vfio_space *space;
	struct vfio_device *devices[DEVICES];
	struct vfio_migration *group[DEVICES];
	struct fake_migration *inside[DEVICES];
	/* a disk of its own */
	int disk_fd;
	unsigned long changed[GRANULES / BITS_PER_LONG + 1];
	struct disk_copy copy;
	struct disk_target arriving;
};

struct rig {
	const struct rig_options *options;
	struct rig_result *result;
	struct fake source, target;
	struct fake_kernel *kernel; /* with the devices of both; NULL: there are none */
	pthread_mutex_t lock;
	/* under lock */
	unsigned int running;
	struct fake *disk; /* who has it */
	int full_fd;       /* of /dev/full */
	uint64_t stopped_at; /* ns; the source's last pause */
	bool over;           /* the source's run */
	unsigned int flushing; /* atomic */
	char front[108], back[108]; /* where the source connects to with a proxy, and where the target listens */
};

extern const struct migration_machine_ops fake_source_ops;  /* opaque: the fake */
extern const struct migration_arrival_ops fake_target_ops; /* opaque: the rig */

/* As a disk does: first it is written, then said so. */
void write_disk(struct fake *fake, uint64_t sector, uint64_t number);
void set_running(struct fake *fake, bool running);
/* With zeroes in its memory, stopped. */
void fake_create(struct fake *fake, struct rig *rig);
/* Also one that was never created. */
void fake_destroy(struct fake *fake);
/* -EBUSY: another machine has it. */
int take_disk(struct fake *fake, struct err *err);

/* ---- migration_machine_devices.c ---- */

/* To the fake kernel, for fake_create later. */
void describe_devices(struct fake *fake, struct rig *rig);
int open_devices(struct fake *fake, struct err *err);
void close_devices(struct fake *fake);
/* What becomes of a device after the whole: in this state, with what was in it, and never reset. */
bool devices_are(const struct fake *fake, uint32_t state);
/* Of the operations of either side. */
size_t do_devices(void *opaque, struct vfio_migration *const **ret);
int start_devices(void *opaque, struct err *err);
int stop_devices(void *opaque, struct err *err);
void run_devices(void *opaque);
size_t target_devices(void *opaque, struct vfio_migration *const **ret);
/* What options.fail says of devices. */
void order_failure(struct rig *rig);
