/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends the state of host devices with one thread for each device. The thread reads the device (vfio/migration.h) and
 * sends on the device's own channel, while the guest runs and after it was paused, in parallel to the last memory. For
 * a snapshot it gives the state to a function instead (snapshot/snapshot_devices.c).
 *
 *	create            devices were started (vfio_migration_start); their channels have exchanged HELLO
 *	  pending         once in each round: what remains, and whether the switchover is allowed
 *	stopped           devices were stopped (vfio_migration_group_stop)
 *	wait              all state and END have been sent
 *	destroy           at any time; before vfio_migration_group_run makes the devices run again
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

struct device_sender;

struct device_sender_options {
	struct vfio_migration *const *devices; /* one for each channel; outlive the sender */
	struct channel *const *channels; /* NULL: take gets the state */
	/* The next bytes of that device, on its thread; 0 or -errno. They have arrived when it returns. */
	int (*take)(void *opaque, size_t index, const void *data, size_t len, struct err *err);
	void *opaque;
	size_t count;
	struct limiter *limiter; /* shared with other senders; NULL: no limit */
	uint64_t rate; /* bytes a second, assumed for a device that has provided too little to measure */
};

struct device_sender_pending {
	uint64_t stop_bytes; /* estimate of what all devices will send if they stop now */
	bool known;          /* all devices gave an estimate */
	uint64_t stop_ns;    /* time of the slowest device to send that, at its rate so far */
	bool assumed;        /* stop_ns uses the assumed rate */
	bool ready;          /* the target has loaded all initial data */
};

/* Starts sending. */
int device_sender_create(const struct device_sender_options *options, struct device_sender **ret, struct err *err);
/* Closes the channels that have not sent END. NULL is fine. */
void device_sender_destroy(struct device_sender *sender);

/* Readable when a device or its channel has failed; device_sender_wait then returns the error. Owned by the sender. */
int device_sender_fd(const struct device_sender *sender);

int device_sender_get_pending(struct device_sender *sender, struct device_sender_pending *ret, struct err *err);

/* The devices are stopped: the threads read the rest of their state without delay. */
void device_sender_stopped(struct device_sender *sender);

/* Waits until all channels have sent END. The first failure ends all threads; its message begins with the device. */
int device_sender_wait(struct device_sender *sender, struct err *err);
/*
 * Whether the threads are done; waits for them until then (ms of monotonic_ms; below 0: for ever). device_sender_wait
 * has the result. A readable cancel_fd (-1: none) ends it with -ECANCELED.
 */
bool device_sender_done(struct device_sender *sender, int cancel_fd, int64_t until);
