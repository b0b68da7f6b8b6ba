/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs: a thread each, that runs the guest and answers its exits on the buses. They are started, paused and stopped
 * together; what a guest's exit means for the machine (it fell over, it cannot go on) is told by a callback.
 */
#pragma once

#include "boot/boot.h"
#include "core/log.h"
#include "vmm/kvm/kvm.h"

struct guest_cpu;
struct vcpu_set;

enum vcpu_event {
	VCPU_SHUTDOWN, /* triple fault or the like: the guest wants a reset */
	VCPU_FAILED,   /* KVM cannot go on; a line was logged */
};

struct vcpu_config {
	struct kvm *kvm;
	unsigned int count;
	struct bus *mmio, *pio;
	const struct log *log;
	/* Called on the vCPU's thread, which then waits to be stopped. */
	void (*event)(void *opaque, enum vcpu_event event);
	void *opaque;
	/* The rate of the guest's time stamp counter in kHz, from another host; 0: this host's. */
	unsigned int tsc_khz;
};

/* Makes the vCPUs, the first one set to enter the kernel (entry NULL: to be loaded), the others waiting for it; no
 * thread yet. -ENOTSUP when the counter's rate cannot be had. */
int vcpu_set_create(const struct vcpu_config *config, const struct guest_cpu *model, const struct boot_entry *entry,
		    struct vcpu_set **ret, struct err *err);
/* Stops and joins the threads. NULL is fine. */
void vcpu_set_destroy(struct vcpu_set *set);

/* Starts the threads; the first vCPU's enters the guest as soon as it exists, or when a set that is started paused is resumed. */
int vcpu_set_start(struct vcpu_set *set, bool paused, struct err *err);
/* Brings every vCPU out of the guest and waits until all are; resume lets them go on. They nest. Not on a vCPU's
 * thread. */
void vcpu_set_pause(struct vcpu_set *set);
void vcpu_set_resume(struct vcpu_set *set);

/* Has the threads of a set that was started paused do what they will do first, but enter the guest; does not wait for it. */
void vcpu_set_warm_up(struct vcpu_set *set);

/* Tells the guests' kernels, where they listen, that they stood still, so that they take no hang for one. */
void vcpu_set_notify_paused(struct vcpu_set *set);

unsigned int vcpu_set_count(const struct vcpu_set *set);
/* A vCPU's descriptor, for what else belongs to it. */
int vcpu_set_fd(const struct vcpu_set *set, unsigned int index);
/* The rate of the guest's time stamp counter in kHz, and that of the host's which is scaled to it; the same where nothing
 * is scaled. */
unsigned int vcpu_set_tsc_khz(const struct vcpu_set *set);
unsigned int vcpu_set_host_tsc_khz(const struct vcpu_set *set);

/*
 * One vCPU's registers, saved while it is paused, or loaded before it is started. The data is hostile. A trial is a load that
 * another one follows, of which nothing may remain.
 */
struct state_buffer;
int vcpu_set_save(struct vcpu_set *set, unsigned int index, struct state_buffer *out, struct err *err);
int vcpu_set_load(struct vcpu_set *set, unsigned int index, bool trial, const void *data, size_t len, struct err *err);
