/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct machine, for the files of the module: machine_create.c makes it, machine_life.c runs it, machine_disks.c has
 * its disks, machine_plug.c lets them come and go, machine_replace.c changes their images, machine_limits.c limits devices,
 * machine_host_devices.c its host devices, machine_state.c saves and loads it, machine_offer.c describes it,
 * disk_copies.c finds its disks to migrate. No other file includes this.
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
#include "vmm/machine/slots.h"

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
	struct pci_windows windows; /* of its addresses */
	struct irq_line serial_irq, rtc_irq, keyboard_irq, power_irq, sci;
	struct serial *serial;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct pvpanic *pvpanic;
	struct power *power;
	struct vmgenid *vmgenid;
	struct vmclock *vmclock;
	struct event_source *button_timer; /* NULL before the first press of the power button */
	struct virtio_transport *virtio[MAX_VIRTIO];
	size_t virtio_count;
	int disk_stop_fd; /* disks kick it when operations of the host fail */
	struct event_source *disk_stop;
	struct virtio_device *balloon;
	struct dirty_set dirty;
	struct slots *slots;
	struct plugged *plugged;  /* the disks and network cards in slots */
	unsigned int plugging;    /* virtio devices that a worker makes, or changes */
	unsigned int unplugging;  /* that a worker closes */
	struct host_devices *host_devices;
	struct boot_image *image;
	struct boot_entry entry;
	struct guest_cpu *guest_cpu;
	struct cpu_job *cpu_job; /* makes guest_cpu; NULL after the thread was joined */
	struct vcpu_set *vcpus;
	struct clock *clock;
	bool has_pit;
	bool has_timer;       /* of ACPI: the guest measures its TSC with it, or the PIT */
	uint32_t hotplug;     /* the PCI devices for hot plug, as in the guest's tables */
	enum machine_end end; /* written once, from any thread */
	bool started;
	bool loaded; /* from a saved state, and not started yet */
	bool vcpus_loaded; /* before the rest */
	bool paused;
	enum { MACHINE_NOT_PAUSING, MACHINE_DRAINS, MACHINE_STOPS } pausing; /* a pause in progress */
	bool settling;
};

/* ---- machine_boot.c ---- */

/* An incoming guest already runs its kernel, and needs the files only for a reboot, if they are named on this host. */
int machine_boot_open_image(struct machine *machine, struct err *err);
/* Loads the kernel and writes the tables; nothing for an incoming machine. After the devices. */
int machine_boot_load(struct machine *machine, struct err *err);

/* ---- machine_disks.c ---- */

/* begin comes before the first disk, end after the last one is gone. */
int machine_disks_begin(struct machine *machine, struct err *err);
void machine_disks_end(struct machine *machine);
int machine_disks_make(struct machine *machine, const struct disk_config *disk, struct virtio_device **ret,
		       struct err *err);
/* NULL: there is none. */
struct virtio_transport *machine_find_disk(const struct machine *machine, const char *id);

/* ---- machine_limits.c ---- */

/* Gives the devices their limits: all, and one that is added later. */
int machine_limits_begin(struct machine *machine, struct err *err);
void machine_limits_begin_device(const struct machine *machine, struct virtio_device *device);

/* ---- machine_plug.c ---- */

/* Puts a device on the bus, at devfn (-1: the first free slot), or on the page of that number, and takes it over, also if
 * that fails. */
int machine_plug(struct machine *machine, struct virtio_device *device, int devfn, struct err *err);
int machine_make_net(struct machine *machine, const struct net_config *net, struct virtio_device **ret,
		     struct err *err);
/* Resumes a device that was drained alone, unless the machine is paused, or about to be. */
bool machine_plug_may_go_on(const struct machine *machine);
void machine_plug_go_on(const struct machine *machine, struct virtio_transport *transport);
/* The machine ends: devices whose removal was asked for leave; the others are not in slots any more. */
void machine_plug_end(struct machine *machine);

/* ---- machine_host_devices.c ---- */

/* After the balloon, which asks host_devices_release before it gives back memory that a device may write to. */
int machine_host_devices_create(struct machine *machine, struct err *err);

/* ---- machine_life.c ---- */

/* Ends the machine. The first reason is kept. Any thread. */
void machine_end_for(struct machine *machine, enum machine_end reason);
/* For an incoming machine, whose devices do nothing yet: they are paused until its guest runs. */
int machine_pause_devices(struct machine *machine, struct err *err);

/* ---- tell_apart.c ---- */

/* The guest is about to boot: gives the machine the identity of its earlier lives, or a new one. */
int machine_identify(struct machine *machine, struct err *err);
/* Leaves the identity of a machine that has run to its next life. */
void machine_leave_identity(const struct machine *machine);
