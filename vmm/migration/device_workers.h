/* SPDX-License-Identifier: Apache-2.0 */
/* What device_sender.c and device_receiver.c share: a crew with one member for each device and its channel, if any. */
#pragma once

#include "core/crew.h"
#include "vfio/migration.h"
#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

struct device_workers;

struct device_worker {
	struct device_workers *all;
	struct vfio_migration *device;
	struct channel *channel; /* or NULL */
	uint64_t position; /* bytes of the device's stream so far; atomic */
	uint64_t frames;
	uint64_t busy_ns; /* sender: time spent on reading and sending; atomic */
	bool asks, acked; /* sender: INITIAL was sent; ACK was received, atomic */
};

struct device_workers {
	int (*work)(struct device_worker *worker, struct err *err);
	void *opaque; /* the owner's */
	struct crew *crew;
	struct limiter *limiter; /* the sender's, or NULL */
	int stopped_fd;          /* sender: eventfd, readable once devices are stopped */
	bool stopped;            /* the same; atomic */
	size_t count;
	struct device_worker workers[];
};

/* Starts a thread for each device, named name and its index, which calls work. channels may be NULL. */
int device_workers_create(struct vfio_migration *const *devices, struct channel *const *channels, size_t count,
			  struct limiter *limiter, const char *name,
			  int (*work)(struct device_worker *worker, struct err *err), void *opaque,
			  struct device_workers **ret, struct err *err);
/* Ends and joins all threads. NULL is fine. */
void device_workers_destroy(struct device_workers *workers);
int device_workers_wait(struct device_workers *workers, struct err *err);
