/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a machine that is to migrate: its complete configuration, the layout of its memory, its CPU, its
 * devices with slot, kind and features, and the identity of its host devices. The source writes it as JSON. The target
 * makes its machine from it, with what differs on its host replaced, and checks that this machine is the same before
 * any memory is transferred.
 *
 * The text comes from a peer and is hostile: its size, its depth and all its counts are bounded, and descriptors in it
 * are refused.
 */
#pragma once

#include "core/guest_memory.h"
#include "devices/pci.h"
#include "vmm/config/config.h"
#include "vmm/migration/request.h"

#include <jansson.h>

struct machine;

/* A device as the guest knows it. */
struct offered_device {
	char id[MACHINE_MAX_NAME + 1];
	char kind[16];     /* "disk", "net", ..., "vfio" */
	uint8_t devfn;          /* or the page, if it is on MMIO: PCI_DEVFN(page, 0) */
	bool mmio;
	uint64_t features;      /* accepted by the driver; virtio only */
	uint64_t size;          /* bytes; disks only */
	bool copied;            /* the disk's content is migrated, too */
	uint64_t allocated;     /* bytes of such a disk that are not holes */
	uint64_t block_size;    /* bytes */
	const json_t *identity; /* host devices only; part of root */
};

#define OFFER_MAX_REGIONS 64u

/* A parsed offer. */
struct machine_offer {
	json_t *root;
	const json_t *config, *cpu; /* in root */
	unsigned int tsc_khz;
	uint32_t hotplug;
	struct {
		uint64_t gpa, size;
	} regions[OFFER_MAX_REGIONS];
	size_t region_count;
	uint64_t used; /* bytes of memory that the machine uses; 0: unknown */
	struct offered_device devices[PCI_DEVICES];
	size_t device_count;
};

/* The machine's offer as JSON text, which the caller frees. copy: the disks to copy. The loop's thread; the guest may
 * run. */
int machine_offer(struct machine *machine, enum migration_copy copy, char **ret, struct err *err);

/*
 * Reads an offer that was parsed; takes the reference, which may be NULL. -EBADMSG: invalid, -ENOTSUP: of another version
 * or architecture.
 */
int machine_offer_read(json_t *root, struct machine_offer **ret, struct err *err);
/* NULL is fine. */
void machine_offer_destroy(struct machine_offer *offer);

/* Whether the user has paused the machine, so that it stays paused on the target. */
bool machine_offer_paused(const struct machine_offer *offer);

/*
 * Writes the offered configuration into config, which has the defaults; the caller then calls machine_config_override
 * and machine_config_finish. -EBADMSG if the configuration is invalid.
 */
int machine_offer_config(const struct machine_offer *offer, struct machine_config *config, struct err *err);

/*
 * Checks, before the machine is made, that room bytes of memory are enough for it: -ENOMEM if not. Not for huge pages,
 * which are reserved when the machine is made.
 */
int machine_offer_check_room(const struct machine_offer *offer, const struct machine_config *config, uint64_t room,
			     struct err *err);

/*
 * Checks that the incoming machine made on this host is the one that was offered: kind, slot, features and size of each
 * device, and the identity of host devices. -EINVAL names the difference.
 */
int machine_offer_check(const struct machine_offer *offer, struct machine *machine, struct err *err);

/* Checks that the memory has the offered layout. */
int machine_offer_check_memory(const struct machine_offer *offer, const struct guest_memory *memory, struct err *err);

/* Whether the content of this disk is migrated, too. */
bool machine_offer_copies(const struct machine_offer *offer, const char *id);

/* The size of the disk's sectors that the guest sees; 0: the offer does not say it. */
unsigned int machine_offer_block_size(const struct machine_offer *offer, const char *id);

/* The devfn of struct offered_device. -ENOENT: the device was not offered. */
int machine_offer_devfn(const struct machine_offer *offer, const char *id, struct err *err);
