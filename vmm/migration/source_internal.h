/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the source share: source.c has the steps, source_rounds.c the rounds and rehearsals,
 * source_devices.c the parts for host devices and disks, source_watch.c what ends them. No other file includes this.
 */
#pragma once

#include <pthread.h>

#include "vmm/migration/deadline.h"
#include "vmm/migration/device_sender.h"
#include "vmm/migration/dialer.h"
#include "vmm/migration/page_list.h"
#include "vmm/migration/rehearsals.h"
#include "vmm/migration/source_config.h"

struct migration_source {
	struct migration_source_config config;
	struct address address;
	int asker; /* who makes the connections, or -1: this process */
	int cancel_fd;
	struct deadline deadline; /* with cancel_fd; all waits get its descriptor */
	const char *late;         /* what has not happened when it passes */
	uint64_t span;            /* ns from when it was set until then */
	struct dialer *dialer;
	struct channel *control;
	struct channel *channels[MIGRATION_MAX_STREAMS];
	unsigned int streams;
	struct limiter limiter;
	struct memory_sender *sender;
	struct channel *device_channels[WIRE_MAX_DEVICES];
	size_t devices;
	struct device_sender *device_sender; /* NULL: no devices */
	struct disk_sender *disks;           /* NULL: no disks to copy */
	struct disk_flusher *flusher;        /* NULL: no disks to flush here */
	unsigned int flushed_round;          /* the last one in which they were */
	struct page_list *pages;
	struct migration_report *report;
	enum migration_state outcome; /* DONE, FAILED or UNRESOLVED */
	char why_not[256];            /* why the guest cannot continue here, or "" */
	struct state_buffer state; /* the machine's state, if it was saved by the pause */
	struct rehearsals rehearsals;
	uint64_t stop_at, stopped_at;
	uint64_t step_at; /* when the current step began */
	pthread_mutex_t lock;
	/* under lock */
	bool committed;  /* too late to cancel */
	char reason[256]; /* why it was cancelled, or "" */
};

/* ---- source_watch.c ---- */

void source_tell(struct migration_source *source, enum migration_state state);
int source_check_cancelled(struct migration_source *source, struct err *err);
/* While memory is sent or the target is awaited: the user, the target, a device or a disk may end the migration. */
int source_tick(void *opaque, struct err *err);
/* From now on waits end after span ns (0: never); late: what has not happened then, as a sentence without its end. */
void source_set_deadline(struct migration_source *source, uint64_t span, const char *late);

/* ---- source_rounds.c ---- */

/* Sends listed memory until none is left or the deadline is reached (0: none). */
int source_send_list(struct migration_source *source, uint64_t deadline, struct err *err);
int source_run_rounds(struct migration_source *source, struct err *err);

/* ---- source_devices.c: the machine's host devices, if any ---- */

/* Connects a channel for each device and starts to send what devices provide while the guest runs. */
int source_start_devices(struct migration_source *source, struct err *err);
/* Undoes all of it; stays: the guest and its devices continue here. */
void source_drop_devices(struct migration_source *source, bool stays);
/* Stops the devices, after the vCPUs. */
int source_stop_devices(struct migration_source *source, struct err *err);
/* Waits until all of their state has been sent. */
int source_end_devices(struct migration_source *source, struct err *err);
/* Adds what devices send during the pause, and whether they are ready to stop. */
int source_device_costs(struct migration_source *source, struct migration_costs *costs, struct err *err);

/* ---- source_devices.c: the disks, which are copied or shared ---- */

/* Whether the target's protocol version supports disks; call after the control channel's HELLO. */
int source_check_disks(const struct migration_source *source, struct err *err);
/* Connects the disk channel; all contents are then listed. Prepares flushes of the shared disks. */
int source_start_disks(struct migration_source *source, struct err *err);
void source_drop_disks(struct migration_source *source, bool stays);
/* The guest is paused: sends the rest and END. The target flushes it while memory is sent. */
int source_end_disks(struct migration_source *source, struct err *err);
