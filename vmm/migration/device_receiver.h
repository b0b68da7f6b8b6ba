/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receives what was in host devices, a thread for each: it reads the device's channel and writes into the device
 * (vfio/migration.h) as it comes, so that nothing of it is kept here. What a channel says is hostile; what the
 * bytes mean is the device's affair, which refuses what is no state of its own.
 *
 * When all have said END each device has taken its state over and stands in STOP.
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/migration/channel.h"

struct device_receiver;

struct device_receiver_options {
	struct vfio_migration *const *devices; /* count of each, by the same index; outlive the receiver */
	struct channel *const *channels;
	size_t count;
};

/* Begins to receive. */
int device_receiver_create(const struct device_receiver_options *options, struct device_receiver **ret, struct err *err);
/* Ends the connections that are not at their END. NULL is fine. */
void device_receiver_destroy(struct device_receiver *receiver);

/* Readable as soon as a device or its channel has failed; device_receiver_wait then tells what it was. Owned by the receiver. */
int device_receiver_fd(const struct device_receiver *receiver);

/*
 * Waits until every device has all of its state and has accepted it. The first failure of any, with the device in front
 * of the sentence, ends them all. The channels' cancel descriptor ends the wait, too.
 */
int device_receiver_wait(struct device_receiver *receiver, struct err *err);
