/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine says of itself before it moves: its configuration with nothing left open, where its memory lies, the
 * CPU that its guest sees, its devices with slot, kind and what was offered to the guest, and who its host devices are. The
 * source writes it as JSON; the target makes its machine from it, with what differs on its host put in place, and
 * finds out whether that machine is the same one before a byte of memory travels.
 *
 * The text comes from a peer and is hostile: its size, its depth and every count in it are bounded, and nothing in it
 * names a descriptor.
 */
#pragma once

#include "core/guest_memory.h"
#include "devices/pci.h"
#include "vmm/config/config.h"
#include "vmm/migration/request.h"

#include <jansson.h>

#define MACHINE_OFFER_MAX MIB(1) /* bytes of JSON */

struct machine;

/* A device as the guest knows it. */
struct offered_device {
	char id[MACHINE_MAX_NAME + 1];
	char kind[16];     /* "disk", "net", ..., "vfio" */
	uint8_t devfn;
	uint64_t features; /* that the driver has accepted, virtio alone */
	uint64_t size;     /* bytes, disks alone */
	bool copied;       /* a disk whose content comes along, */
	uint64_t allocated; /* of which so many bytes are no holes, */
	uint64_t block_size; /* and that has blocks of so many */
	const json_t *identity; /* host devices alone; the offer's */
};

#define OFFER_MAX_REGIONS 64u

/* One that was read, by machine_offer_parse. */
struct machine_offer {
	json_t *root;
	const json_t *config, *cpu; /* in root */
	unsigned int tsc_khz;
	uint32_t hotplug;
	struct {
		uint64_t gpa, size;
	} regions[OFFER_MAX_REGIONS];
	size_t region_count;
	uint64_t used; /* bytes of memory that the machine has; 0: not told */
	struct offered_device devices[PCI_DEVICES];
	size_t device_count;
};

/* The machine's offer as JSON text, which the caller frees; what of its disks goes along. The loop's thread; the guest may run. */
int machine_offer(struct machine *machine, enum migration_copy copy, char **ret, struct err *err);

/* Reads an offer. -EBADMSG for nonsense, -ENOTSUP for the offer of another version or architecture. */
int machine_offer_parse(const char *text, size_t len, struct machine_offer **ret, struct err *err);
/* NULL is fine. */
void machine_offer_destroy(struct machine_offer *offer);

/* It was paused by its user, and is to arrive so. */
bool machine_offer_paused(const struct machine_offer *offer);

/*
 * Writes the offered configuration into config, which holds its defaults; machine_config_override and
 * machine_config_finish follow. -EBADMSG for one that this program would not take.
 */
int machine_offer_config(const struct machine_offer *offer, struct machine_config *config, struct err *err);

/*
 * Whether a host that has room bytes of memory left can take it, before the machine is made: -ENOMEM when not. Huge pages are
 * counted when the machine is made.
 */
int machine_offer_check_room(const struct machine_offer *offer, const struct machine_config *config, uint64_t room,
			     struct err *err);

/*
 * Whether the machine, made on this host as an incoming one, is the one offered: each device with its kind, its slot, the
 * features that the guest has accepted, its size; each host device's identity. -EINVAL names the thing.
 */
int machine_offer_check(const struct machine_offer *offer, struct machine *machine, struct err *err);

/* Whether this memory is laid out as the one offered. */
int machine_offer_check_memory(const struct machine_offer *offer, const struct guest_memory *memory, struct err *err);

/* Whether what is on the disk of this id comes along. */
bool machine_offer_copies(const struct machine_offer *offer, const char *id);

/* The PCI slot that the guest knows the device of this id in: -ENOENT for one that was not offered. */
int machine_offer_devfn(const struct machine_offer *offer, const char *id, struct err *err);
