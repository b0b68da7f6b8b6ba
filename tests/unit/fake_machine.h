/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine of which a migration or a snapshot asks, on the thread of the loop, in the place of machine/, its disks and
 * its host devices: counts what is begun and what is ended, and fails as it is told.
 */
#pragma once

#include "core/dirty.h"
#include "devices/virtio/virtio.h"
#include "vmm/machine/machine.h"

struct machine {
	enum machine_end end;
	bool paused, locked, save_fails, lock_fails, offer_fails, track_fails, devices_fail, runs_badly;
	unsigned int not_yet; /* so many times a pause is in progress */
	int pause_code;
	unsigned int pauses, resumes, unpauses, vcpu_pauses;
	int64_t deadline;
	int moving;  /* host_devices_migration: begun and not ended */
	int devices; /* started and not stopped or run */
	int tracked;
	struct guest_memory *memory; /* NULL: a pointer that is not used */
	struct dirty_set dirty;
	bool diskless;
	struct virtio_device disk;
	const char *guard;
};

extern struct machine machine;
