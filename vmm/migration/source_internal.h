/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of a migration between its files: source.c has the steps, source_devices.c what they do with host devices
 * and disks.
 * Nobody else includes this.
 */
#pragma once

#include <pthread.h>

#include "vmm/migration/device_sender.h"
#include "vmm/migration/dialer.h"
#include "vmm/migration/page_list.h"
#include "vmm/migration/source_config.h"

struct migration_source {
	struct migration_source_config config;
	struct address address;
	int cancel_fd;
	struct dialer *dialer;
	struct channel *control;
	struct channel *channels[MIGRATION_MAX_STREAMS];
	unsigned int streams;
	struct limiter limiter;
	struct memory_sender *sender;
	struct channel *device_channels[WIRE_MAX_DEVICES];
	size_t devices;
	struct device_sender *device_sender; /* NULL where there are no devices */
	struct disk_sender *disks;           /* NULL where none go along */
	struct page_list *pages;
	struct migration_report *report;
	enum migration_state outcome; /* DONE, FAILED or UNRESOLVED */
	char why_not[256];            /* what keeps the guest from going on here, or "" */
	struct state_buffer state; /* the machine's, where it was taken down when it stopped */
	uint64_t rehearsed;        /* when it was last, or 0 */
	uint64_t stop_at, stopped_at;
	uint64_t step_at; /* when the step under way began */
	pthread_mutex_t lock;
	/* under lock */
	bool committed;  /* too late to cancel */
	char reason[256]; /* why it was cancelled, or "" */
};

/* ---- source_devices.c: the machine's host devices, if it has any ---- */

/* Connects a channel for each and begins to send what they give while the guest runs. */
int source_start_devices(struct migration_source *source, struct err *err);
/* The way back from all of it; stays: the guest runs here from now on, and so do they. */
void source_drop_devices(struct migration_source *source, bool stays);
/* The guest stands: so do its devices now. */
int source_stop_devices(struct migration_source *source, struct err *err);
/* What a device or its channel has come to, if that is a failure. */
int source_check_devices(struct migration_source *source, struct err *err);
/* Adds what devices send while the guest stands, and whether they are ready for that. */
int source_device_costs(struct migration_source *source, struct migration_costs *costs, struct err *err);

/* ---- source_devices.c: the disks whose content goes along, if there are any ---- */

/* Whether the target, with whom the control channel has agreed on a version, can take disks. */
int source_check_disks(const struct migration_source *source, struct err *err);
/* Connects their channel; all that is on them is to be sent then. */
int source_start_disks(struct migration_source *source, struct err *err);
void source_drop_disks(struct migration_source *source, bool stays);
/* The guest stands: sends the rest and says END; the target flushes it while memory goes. */
int source_end_disks(struct migration_source *source, struct err *err);
