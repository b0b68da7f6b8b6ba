/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends what is in host devices: a thread for each reads it (vfio/migration.h) and sends it on the device's own channel, while the
 * guest runs and after it was stopped, so that device state crosses beside the last memory.
 *
 *	create            devices have been started (vfio_migration_start); their channels have said HELLO
 *	  pending         once a round: what is still to come, and whether the switchover may be
 *	stopped           they have been stopped (vfio_migration_group_stop)
 *	wait              all that was in them has been sent, and END
 *	destroy           at any time; before the devices are brought back by vfio_migration_group_run
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

struct device_sender;

struct device_sender_options {
	struct vfio_migration *const *devices; /* count of each; outlive the sender */
	struct channel *const *channels;
	size_t count;
	struct limiter *limiter; /* shared with whoever else sends; NULL: no cap */
	uint64_t rate; /* bytes a second that a device is taken to give which has given too little to tell */
};

struct device_sender_pending {
	uint64_t stop_bytes; /* what devices will send after a stop now, all together; an estimate */
	bool known;          /* all of them gave one */
	uint64_t stop_ns;    /* what the slowest will take for that, by the rate of what it gave so far */
	bool assumed;        /* that is by the rate that the options have */
	bool ready;          /* none has initial data that the target has not loaded yet */
};

/* Begins to send. */
int device_sender_create(const struct device_sender_options *options, struct device_sender **ret, struct err *err);
/* Ends the connections that are not at their END. NULL is fine. */
void device_sender_destroy(struct device_sender *sender);

/* Readable as soon as a device or its channel has failed; device_sender_wait then tells what it was. Owned by the sender. */
int device_sender_fd(const struct device_sender *sender);

int device_sender_get_pending(struct device_sender *sender, struct device_sender_pending *ret, struct err *err);

/* The devices stand still: they are read to their end at once. */
void device_sender_stopped(struct device_sender *sender);

/* Waits until all have said END. The first failure of any, with the device in front of the sentence, ends them all. */
int device_sender_wait(struct device_sender *sender, struct err *err);
