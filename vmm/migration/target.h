/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's side of a migration: a table of steps. The machine is made from the source's offer before memory is
 * sent, so that missing resources are reported at once. The guest does not run before GO. After GO it runs even if the
 * connection fails.
 */
#pragma once

#include "core/guest_memory.h"
#include "core/log.h"
#include "vfio/migration.h"
#include "vmm/migration/address.h"
#include "vmm/migration/disk_receiver.h"

#include <jansson.h>

/* What the target calls of the maker of machines, on the migration's thread. */
struct migration_arrival_ops {
	/* Parses the source's JSON, as json_stage_parse. */
	int (*parse)(void *opaque, const char *text, size_t len, json_t **ret, struct err *err);
	/*
	 * Makes the machine of an offer, which it takes (json_decref). *ready (the caller's) is READY's payload. The source's
	 * user sees the error.
	 */
	int (*create)(void *opaque, json_t *offer, char **ready, struct err *err);
	struct guest_memory *(*memory)(void *opaque);
	/* The machine's host devices, in the same order as on the source. NULL: there are never any. */
	size_t (*devices)(void *opaque, struct vfio_migration *const **ret);
	/* The disks to receive, in the order of the offer. NULL: there are never any. */
	size_t (*disks)(void *opaque, const struct disk_target **ret);
	/* Loads a state of the running guest, as far as load can overwrite it: a rehearsal that measures the time. */
	int (*try)(void *opaque, const void *state, size_t len, struct err *err);
	/* The host devices have their device state before this call. */
	int (*load)(void *opaque, const void *state, size_t len, struct err *err);
	/* Locks the disks, starts host devices and guest. A failure changes nothing and leaves the disks unlocked. */
	int (*start)(void *opaque, struct err *err);
};

struct migration_target_config {
	const struct address *from;
	const struct migration_arrival_ops *ops;
	void *opaque;
	const struct log *log;
	const char *tls, *tls_peer, *tls_helper; /* see acceptor_options; or NULL */
	int cancel_fd;   /* readable: the target gives up, unless the guest runs already. Not owned */
	unsigned int silence_ms; /* time without a reply after which the peer counts as lost; 0: CHANNEL_SILENCE_MS */
};

struct migration_target;

/* Listens when it returns. */
int migration_target_create(const struct migration_target_config *config, struct migration_target **ret, struct err *err);
void migration_target_destroy(struct migration_target *target);

/* The address that it listens on, for messages. */
const char *migration_target_text(const struct migration_target *target);

/*
 * Waits for a source and makes the machine that it describes, on the calling thread. No thread of it is left when it returns.
 * Else the machine is not made, and migration_target_run is not called. The source's user gets the same message.
 */
int migration_target_meet(struct migration_target *target, struct err *err);
/*
 * Then receives the machine and starts it, on the calling thread, which may be another one. 0: the guest runs here. Else it
 * does not and will not; the caller destroys what was made. The source's user gets the same message.
 */
int migration_target_run(struct migration_target *target, struct err *err);
