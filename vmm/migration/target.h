/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's side of a migration: a table of steps. The machine is made of the source's offer before a byte of memory comes,
 * so that what this host does not have is said at once. It does not run before the source has said GO; after GO it runs whatever
 * becomes of the connection.
 */
#pragma once

#include "core/guest_memory.h"
#include "core/log.h"
#include "vfio/migration.h"
#include "vmm/migration/address.h"
#include "vmm/migration/disk_receiver.h"

/* What the target wants of whoever makes machines; called on the migration's thread. */
struct migration_arrival_ops {
	/* Makes the machine of an offer. *ready (the caller's) is what READY carries. What is refused is told to the source's user. */
	int (*create)(void *opaque, const char *offer, size_t len, char **ready, struct err *err);
	struct guest_memory *(*memory)(void *opaque);
	/* The machine's host devices, in an order that is the same on the source. NULL: it never has any. */
	size_t (*devices)(void *opaque, struct vfio_migration *const **ret);
	/* The disks whose content comes along, in the order of the offer. NULL: none ever does. */
	size_t (*disks)(void *opaque, const struct disk_target **ret);
	/* Loads a state of the running guest as far as the real one undoes that; to be ready, and to know how long it takes. */
	int (*try)(void *opaque, const void *state, size_t len, struct err *err);
	/* After that the devices have what was in them. */
	int (*load)(void *opaque, const void *state, size_t len, struct err *err);
	/* Takes the disks' locks and lets host devices and the guest run; what fails leaves it as it was, and the locks free. */
	int (*start)(void *opaque, struct err *err);
};

struct migration_target_config {
	const struct address *from;
	const struct migration_arrival_ops *ops;
	void *opaque;
	const struct log *log;
	const char *tls; /* or NULL */
	int cancel_fd;   /* readable: it ends, unless the guest already runs. Not owned */
	unsigned int silence_ms; /* after which the peer is given up; 0: CHANNEL_SILENCE_MS */
};

struct migration_target;

/* Listens from its return on. */
int migration_target_create(const struct migration_target_config *config, struct migration_target **ret, struct err *err);
void migration_target_destroy(struct migration_target *target);

/* Where it listens, for people. */
const char *migration_target_text(const struct migration_target *target);

/*
 * Waits for a machine and lets it run; on the calling thread. 0: the guest runs here. Else it does not and will not, and what
 * was made is to be destroyed by the caller; the source's user has been told the same words.
 */
int migration_target_run(struct migration_target *target, struct err *err);
