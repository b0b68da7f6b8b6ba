/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's inside, for the files that it is made of: machine.c puts it together, machine_life.c runs it,
 * machine_state.c saves and loads it, machine_offer.c describes it, disk_copies.c takes its disks along. Nobody else includes
 * this.
 */
#pragma once

#include "vmm/machine/machine.h"

#include "boot/boot.h"
#include "devices/pci.h"
#include "devices/platform.h"
#include "devices/virtio/virtio.h"
#include "vmm/kvm/clock.h"
#include "vmm/kvm/guest_cpu.h"
#include "vmm/kvm/irqchip.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/machine/host_devices.h"
#include "vmm/machine/memory.h"

#include <jansson.h>

#define MAX_VIRTIO MACHINE_MAX_PCI_DEVICES

struct machine {
	const struct machine_config *config;
	struct machine_host host;
	struct kvm kvm;
	struct guest_memory *memory;
	struct ram *ram;
	struct bus *mmio, *pio;
	struct irqchip *irqchip;
	struct pci_bus *pci;
	struct irq_line serial_irq, rtc_irq, power_irq;
	struct serial *serial;
	struct rtc *rtc;
	struct pvpanic *pvpanic;
	struct power *power;
	struct virtio_pci *virtio[MAX_VIRTIO];
	size_t virtio_count;
	struct virtio_device *balloon;
	struct dirty_set dirty;
	struct host_devices *host_devices;
	struct boot_image *image;
	struct boot_entry entry;
	struct guest_cpu *guest_cpu;
	struct cpu_job *cpu_job; /* makes guest_cpu; NULL once that was waited for */
	struct vcpu_set *vcpus;
	struct clock *clock;
	uint32_t hotplug;     /* the PCI devices that can come and go, as the guest was told */
	enum machine_end end; /* written once, from any thread */
	bool started;
	bool loaded; /* from a saved state, and not started yet */
	bool paused;
};

/* Stops the devices, when the vCPUs stand still or do not run yet: the machine is paused. */
void machine_hold(struct machine *machine);

/* ---- an offer that was read (machine_offer.c) ---- */

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

/* Whether this memory is laid out as the one offered. */
int machine_offer_check_memory(const struct machine_offer *offer, const struct guest_memory *memory, struct err *err);
