/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receives guest pages directly into guest memory, with one thread for each memory channel. The data is hostile: an
 * address is checked against the regions, and against the channel, before a byte is read.
 *
 * The memory must be all zero at the start, as in a machine that was made for a migration: pages that are sent as zero
 * are not touched unless other data was received for them before.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/migration/channel.h"

struct memory_receiver;

struct memory_receiver_options {
	const struct guest_memory *memory; /* its regions do not change meanwhile; nothing else accesses it */
	struct channel *const *channels;   /* memory channels 0 to channel_count - 1; outlive the receiver */
	unsigned int channel_count;
};

/* Starts receiving. */
int memory_receiver_create(const struct memory_receiver_options *options, struct memory_receiver **ret, struct err *err);
/* Closes the channels that have not received END. NULL is fine. */
void memory_receiver_destroy(struct memory_receiver *receiver);

/*
 * Readable when a channel has failed, for channel_set_interrupt of the control channel; memory_receiver_wait then
 * returns the error. Owned by the receiver.
 */
int memory_receiver_fd(const struct memory_receiver *receiver);

/*
 * Waits until every channel has received END with correct totals, or until cancel_fd is readable (-ECANCELED; -1:
 * none). The first failure ends all threads; its message begins with the channel.
 */
int memory_receiver_wait(struct memory_receiver *receiver, int cancel_fd, struct err *err);
/*
 * Whether the threads are done; waits for them until then (ms of monotonic_ms; below 0: for ever). memory_receiver_wait
 * has the result. A readable cancel_fd (-1: none) ends it with -ECANCELED.
 */
bool memory_receiver_done(struct memory_receiver *receiver, int cancel_fd, int64_t until);
