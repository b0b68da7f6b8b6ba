/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every virtio device there is, one at a time, in a machine of its own around one guest memory: what its saved state is
 * tried on, by a test and by a fuzzer. Aborts when the host cannot build it.
 */
#pragma once

#include "tests/unit/pci_rig.h"
#include "tests/unit/virtio_driver.h"

#define STATE_SLOT PCI_DEVFN(1, 0)

struct state_devices {
	struct pci_rig rig;
	struct event_loop *loop;    /* on a thread of its own */
	struct virtio_driver *ram;  /* the guest's memory, and no more of a driver than that */
	struct virtio_transport *pci;     /* what is plugged, or NULL */
	unsigned int kind;
	int far[4]; /* the other ends of descriptors, or -1 */
	char dir[32];
};

/* Their number, and what they are called. */
extern const char *const state_device_names[];
extern const unsigned int state_device_count;

void state_devices_open(struct state_devices *d);
void state_devices_close(struct state_devices *d);

/* A fresh one of a kind in a fresh machine, in place of the one before; guest memory stays. */
void state_devices_make(struct state_devices *d, unsigned int kind);
void state_devices_drop(struct state_devices *d);

/* What a driver does with it up to DRIVER_OK, with all features and MSI-X, a buffer in each queue; and what it does then.
 * The guest's memory is cleared first. */
void state_devices_bring_up(struct state_devices *d);
/* Goes on after a load or a pause: traffic, config, interrupts, another pause, a reset. Expects nothing. */
void state_devices_use(struct state_devices *d);
