/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What device_sender.c and device_receiver.c have in common: a thread for each device with its channel, the first failure of any
 * of them, and an end that none outlives. Nobody else includes it.
 */
#pragma once

#include "vfio/migration.h"
#include "vmm/migration/channel.h"
#include "vmm/migration/limiter.h"

struct device_workers;

struct device_worker {
	struct device_workers *all;
	struct vfio_migration *device;
	struct channel *channel;
	pthread_t thread;
	bool running;      /* there is a thread to be joined */
	uint64_t position; /* bytes of the device's stream so far; atomic */
	uint64_t frames;
	uint64_t busy_ns; /* the sender's: reading and sending took so long; atomic */
	bool asks, acked; /* the sender's: INITIAL has been said; ACK has been heard, atomic */
};

struct device_workers {
	int (*work)(struct device_worker *worker, struct err *err);
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int failed_fd;
	struct limiter *limiter; /* the sender's, or NULL */
	/* under lock */
	size_t busy;  /* threads at work */
	int code;     /* of the first failure */
	struct err err;
	bool stopped; /* the sender's: devices stand still */
	bool ending;
	size_t count;
	struct device_worker workers[];
};

/* Starts a thread for each device, named name and its index, which calls work. */
int device_workers_create(struct vfio_migration *const *devices, struct channel *const *channels, size_t count,
			  struct limiter *limiter, const char *name,
			  int (*work)(struct device_worker *worker, struct err *err), struct device_workers **ret,
			  struct err *err);
/* Ends and joins all. NULL is fine. */
void device_workers_destroy(struct device_workers *workers);
int device_workers_wait(struct device_workers *workers, struct err *err);
uint64_t device_workers_bytes(const struct device_workers *workers);
/* Sleeps until the devices are told to stand still or this is to end, ms at most. True: to go on; false: this is to end. */
bool device_workers_rest(struct device_workers *workers, unsigned int ms);
