/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receives guest pages, one thread a memory channel, straight into guest memory. What the channels say is hostile: an
 * address is checked against the regions, and against the channel that it may come on, before a byte is read.
 *
 * The memory must be all zero when it begins, as that of a machine is that was made for a migration: pages that are sent as
 * zero are then left untouched until something else was sent for them.
 */
#pragma once

#include "core/guest_memory.h"
#include "vmm/migration/channel.h"

struct memory_receiver;

struct memory_receiver_options {
	const struct guest_memory *memory; /* keeps its regions as long as the receiver lives; nobody else touches it */
	struct channel *const *channels;   /* memory channels 0 to channel_count - 1; outlive the receiver */
	unsigned int channel_count;
};

/* Begins to receive. */
int memory_receiver_create(const struct memory_receiver_options *options, struct memory_receiver **ret, struct err *err);
/* Ends the connections that are not at their END. NULL is fine. */
void memory_receiver_destroy(struct memory_receiver *receiver);

/*
 * Readable as soon as a channel has failed: for channel_set_interrupt of the control channel; memory_receiver_wait then tells
 * what it was. Owned by the receiver.
 */
int memory_receiver_fd(const struct memory_receiver *receiver);

/*
 * Waits until every channel has said END and its totals are right, or cancel_fd is readable (-ECANCELED; -1: none). The first
 * failure of any channel, with the channel in front of the sentence, ends them all.
 */
int memory_receiver_wait(struct memory_receiver *receiver, int cancel_fd, struct err *err);
