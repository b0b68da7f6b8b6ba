/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs: each has a thread, which runs the guest and handles its exits on the buses. They are started, paused and
 * stopped together; a callback reports events that concern the machine (reset, failure).
 */
#pragma once

#include "boot/boot.h"
#include "core/log.h"
#include "vmm/kvm/kvm.h"

struct affinity_options;
struct guest_cpu;
struct vcpu_set;

enum vcpu_event {
	VCPU_SHUTDOWN, /* a triple fault or the like: the machine is reset */
	VCPU_FAILED,   /* KVM cannot run the guest; the reason was logged */
};

struct vcpu_config {
	struct kvm *kvm;
	unsigned int count;
	struct bus *mmio, *pio;
	const struct log *log;
	/* Called on the vCPU's thread, which then waits to be stopped. */
	void (*event)(void *opaque, enum vcpu_event event);
	/*
	 * Asked before a vCPU is declared to have failed or to have reset the machine: whether that is because the
	 * memory is gone, which was told and ends the machine. KVM shows memory that cannot be read as EFAULT (fault),
	 * or, where it walks the guest's page tables, as page faults of the guest, which end in a triple fault. NULL:
	 * memory does not go away.
	 */
	bool (*memory_lost)(void *opaque, bool fault);
	void *opaque;
	const struct affinity_options *affinity; /* of the threads; NULL: none */
	/* The guest's TSC rate in kHz on the host that it comes from; 0: this host's. */
	unsigned int tsc_khz;
};

/* Creates the vCPUs without threads. The first one is set to enter the kernel (entry NULL: its state will be loaded),
 * the others wait for it. -ENOTSUP if KVM cannot provide the TSC rate. */
int vcpu_set_create(const struct vcpu_config *config, const struct guest_cpu *model, const struct boot_entry *entry,
		    struct vcpu_set **ret, struct err *err);
/* Stops and joins the threads. NULL is fine. */
void vcpu_set_destroy(struct vcpu_set *set);

/* Starts the threads, which enter the guest; paused: only after vcpu_set_resume. */
int vcpu_set_start(struct vcpu_set *set, bool paused, struct err *err);
/*
 * Pauses all vCPUs, and resumes them. Pauses nest. wait returns when all have left the guest, or -ETIMEDOUT at deadline
 * (of monotonic_ms(); below 0: none): a vCPU waits for something in this process. Not on a vCPU's thread.
 */
void vcpu_set_pause(struct vcpu_set *set);
int vcpu_set_wait(struct vcpu_set *set, int64_t deadline);
void vcpu_set_resume(struct vcpu_set *set);

/* Makes the threads of a set that was started paused call KVM_RUN without entering the guest, which does what the first
 * KVM_RUN has to do. Does not wait. */
void vcpu_set_warm_up(struct vcpu_set *set);

/* Notifies the guest's kernel that it was paused, so that its watchdogs do not report a lockup (KVM_KVMCLOCK_CTRL). */
void vcpu_set_notify_paused(struct vcpu_set *set);

/* Stops the timers of paused vCPUs, all or none; and lets them run on, as far as they are stopped. True: local APICs
 * were loaded, and may have lost interrupts. */
int vcpu_set_stop_timers(struct vcpu_set *set, struct err *err);
bool vcpu_set_start_timers(struct vcpu_set *set, const struct log *log);

/* Why a vCPU returned from KVM_RUN to this process. */
enum vcpu_exit {
	VCPU_EXIT_IO,       /* an access to a port that no eventfd answers */
	VCPU_EXIT_MMIO,     /* and one to an address without memory */
	VCPU_EXIT_WINDOW,   /* the guest can take an interrupt now */
	VCPU_EXIT_KICKED,   /* a signal: a pause, a throttle, another thread's request */
	VCPU_EXIT_SHUTDOWN, /* a triple fault, or another reset */
	VCPU_EXIT_FAILED,   /* KVM cannot run the guest */
	VCPU_EXIT_NOTIFY,   /* the guest took no interrupt for too long */
	VCPU_EXIT_OTHER,
	VCPU_EXITS,
};
extern const char *const vcpu_exit_names[VCPU_EXITS];

/* How often a vCPU has exited for this reason. Any thread. */
uint64_t vcpu_set_exits(const struct vcpu_set *set, unsigned int index, enum vcpu_exit reason);
/* The descriptors of all vCPUs' statistics, for kvm_stats_each. */
const int *vcpu_set_stats(const struct vcpu_set *set);

unsigned int vcpu_set_count(const struct vcpu_set *set);
/* A vCPU's descriptor, for clock_x86.c. */
int vcpu_set_fd(const struct vcpu_set *set, unsigned int index);
/* The guest's TSC rate in kHz, and the rate of the host's TSC that is scaled to it; both are equal without scaling. */
unsigned int vcpu_set_tsc_khz(const struct vcpu_set *set);
unsigned int vcpu_set_host_tsc_khz(const struct vcpu_set *set);
/* The rate that the guest's TSC has, which without scaling is only about that which the guest was told. */
unsigned int vcpu_set_real_tsc_khz(const struct vcpu_set *set);

/*
 * Saves a paused vCPU's state, or loads it before the vCPU enters the guest. The data is hostile. trial: another load
 * follows, which must replace everything that this one sets.
 */
struct state_buffer;
int vcpu_set_save(struct vcpu_set *set, unsigned int index, struct state_buffer *out, struct err *err);
int vcpu_set_load(struct vcpu_set *set, unsigned int index, bool trial, const void *data, size_t len, struct err *err);
