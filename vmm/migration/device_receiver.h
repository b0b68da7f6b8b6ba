/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receives the state of host devices with one thread for each device. The thread reads the device's channel and writes
 * the data into the device (vfio/migration.h) as it arrives; nothing is buffered here. The channel's data is hostile.
 * Only the device knows what the bytes mean; it refuses an invalid state.
 *
 * After END on all channels, each device has loaded its state and is in STOP.
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/migration/channel.h"

struct device_receiver;

struct device_receiver_options {
	struct vfio_migration *const *devices; /* one for each channel, same index; outlive the receiver */
	struct channel *const *channels;
	size_t count;
};

/* Starts receiving. */
int device_receiver_create(const struct device_receiver_options *options, struct device_receiver **ret, struct err *err);
/* Closes the channels that have not received END. NULL is fine. */
void device_receiver_destroy(struct device_receiver *receiver);

/* Readable when a device or its channel has failed; device_receiver_wait then returns the error. Not the caller's. */
int device_receiver_fd(const struct device_receiver *receiver);

/*
 * Waits until every device has received and accepted its whole state. The first failure ends all threads; its message
 * begins with the device. The channels' cancel descriptor also ends the wait.
 */
int device_receiver_wait(struct device_receiver *receiver, struct err *err);
/*
 * Whether the threads are done; waits for them until then (ms of monotonic_ms; below 0: for ever). device_receiver_wait
 * has the result. A readable cancel_fd (-1: none) ends it with -ECANCELED.
 */
bool device_receiver_done(struct device_receiver *receiver, int cancel_fd, int64_t until);
