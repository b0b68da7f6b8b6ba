/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device that only notes what happens to it, behind virtio_pci in a rig, and a driver that has nothing but
 * config space and the BAR. For the tests of virtio_pci; one at a time. That of virtio_mmio has the device alone. What goes
 * wrong here fails the test.
 */
#pragma once

#include "core/event_loop.h"
#include "tests/unit/pci_rig.h"
#include "tests/unit/test.h"
#include "tests/unit/virtio_driver.h"

#include <linux/virtio_pci.h>

#define SLOT PCI_DEVFN(1, 0)
#define QUEUES 3u
#define COMMON(name) offsetof(struct virtio_pci_common_cfg, name)
#define ACK VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER (ACK | VIRTIO_CONFIG_S_DRIVER)
#define FEATURES_OK (DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define DRIVER_OK (FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)
#define VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define OWN_FEATURE (1ull << 3)

#define MEMORY PCI_COMMAND_MEMORY
#define MASTER PCI_COMMAND_MASTER

/* A device that notes what happens to it. */
struct probe {
	struct virtio_device device;
	unsigned int activated, prepared, resets, drained, resumed, destroyed;
	unsigned int call_changed[QUEUES];
	bool hung;    /* a drain times out */
	bool blocked; /* a reset, or a write to its config, waits as long; atomic, as waits: one does */
	bool waits;
	uint64_t features;
	int fail;
	uint8_t config[8];
};

extern struct pci_rig rig;
extern struct virtio_transport *pci;
extern struct probe *probe;
extern struct event_loop *loop;
extern struct virtio_driver *memory; /* for its guest memory alone */
extern unsigned int destroyed;       /* probes */
extern uint64_t bar;                 /* where the BAR is */
extern const struct virtio_device_ops probe_ops;

/* A new rig with a probe in it, memory and bus mastering on. */
void set_up(void);
/* Puts another device there. */
void plug(struct virtio_device *device);
/* Another probe as set_up makes them. */
struct probe *make_probe(void);
/* Another machine with the same guest memory, and in it device, as the machine has made it: nobody has touched it. */
void move_to(struct virtio_device *device);
void tear_down(void);

/* Accesses to a structure by its VIRTIO_PCI_CAP_*. */
uint64_t structure(uint8_t type);
uint32_t get(uint8_t type, unsigned int offset, unsigned int len);
void set(uint8_t type, unsigned int offset, unsigned int len, uint64_t value);
#define GET(name) get(VIRTIO_PCI_CAP_COMMON_CFG, COMMON(name), sizeof(((struct virtio_pci_common_cfg *)0)->name))
#define SET(name, value) \
	set(VIRTIO_PCI_CAP_COMMON_CFG, COMMON(name), sizeof(((struct virtio_pci_common_cfg *)0)->name), value)

void command(uint16_t value);

/* Negotiates features (VERSION_1 is added), up to FEATURES_OK. */
void negotiate(uint64_t features);
void program_queue(unsigned int index, uint64_t desc, uint64_t avail, uint64_t used);
void enable_queue(unsigned int index);
/* All of that for the first queues, to DRIVER_OK. */
void bring_up(unsigned int queues);

void enable_msix(bool on);
void program_vector(unsigned int index, uint32_t data, bool masked);
bool line_high(void);
/* The device's side: interrupts for a queue, changes its config, was kicked. */
void notify(unsigned int queue);
void config_changes(void);
bool kicked(unsigned int queue);

/* The window into the BAR (VIRTIO_PCI_CAP_PCI_CFG): its capability, and where it looks. */
unsigned int window(void);
void aim(uint32_t bar_index, uint32_t offset, uint32_t len);
