/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's inside, for the files that it is made of: machine_create.c puts it together, machine_life.c runs
 * it, machine_state.c saves and loads it, machine_offer.c describes it, disk_copies.c takes its disks along. Nobody
 * else includes this.
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

/* ---- machine_life.c ---- */

/* Why it ends: the first reason wins. Any thread. */
void machine_end_for(struct machine *machine, enum machine_end reason);
/* Stops the devices, when the vCPUs stand still or do not run yet: the machine is paused. As machine_pause, but what stands
 * after a failure the caller lets go. */
int machine_pause_devices(struct machine *machine, struct err *err);
