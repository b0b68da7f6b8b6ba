/* SPDX-License-Identifier: Apache-2.0 */
/* The architecture's part of vcpu.c. Only vcpu.c calls it. */
#pragma once

#include "boot/boot.h"
#include "core/state.h"
#include "vmm/kvm/kvm.h"

/* Sets the registers of a new vCPU that no state will be loaded into (vcpu_x86.c); entry is NULL for all but the first. */
int vcpu_arch_reset(struct kvm *kvm, int vcpu_fd, const struct boot_entry *entry, struct err *err);
/* The rates in kHz of the guest's TSC: that which it was told, that of the host's TSC which is scaled to it (equal to
 * the former without scaling), and that which it has. */
struct vcpu_tsc_rates {
	unsigned int told, host, real;
};
/* Sets the TSC rate; rates->told is the wanted one, or 0 for the host's. stable: CPUID tells the guest that the rate is
 * constant. */
int vcpu_arch_set_tsc(struct kvm *kvm, int vcpu_fd, bool stable, struct vcpu_tsc_rates *rates, struct err *err);

/* A vCPU's timer (vcpu_timer_x86.c): what was left of it when it was stopped. */
struct vcpu_timer {
	bool stopped;
	uint64_t deadline; /* of the TSC; 0: none */
	uint32_t left;     /* the count, in the other modes */
};
/* Stops it, if it is not stopped; starts it, if it is. The vCPU is paused. */
int vcpu_arch_stop_timer(int vcpu_fd, struct vcpu_timer *timer, struct err *err);
int vcpu_arch_start_timer(int vcpu_fd, struct vcpu_timer *timer, struct err *err);
/* What a saved state has of a timer that is stopped. */
void vcpu_arch_save_timer(const struct vcpu_timer *timer, struct kvm_lapic_state *lapic, uint64_t *deadline);
/* Of a state that is being loaded: a deadline is not set but kept in timer, which is stopped. */
void vcpu_arch_load_timer(struct vcpu_timer *timer, const struct kvm_lapic_state *lapic, uint64_t deadline);

/* Saves and loads a vCPU (vcpu_state_x86.c). create finds out what this KVM supports. NULL is fine for destroy. */
struct vcpu_arch;
int vcpu_arch_create(struct kvm *kvm, struct vcpu_arch **ret, struct err *err);
void vcpu_arch_destroy(struct vcpu_arch *arch);
int vcpu_arch_save(struct vcpu_arch *arch, int vcpu_fd, const struct vcpu_timer *timer, struct state_buffer *out,
		   struct err *err);
/*
 * trial: another load follows. fresh: none has come before, so that what is as after a reset is left. The timer is then
 * stopped and has what the state says, unless it is one that KVM has started by itself.
 */
struct vcpu_load {
	bool trial, fresh;
};
int vcpu_arch_load(struct vcpu_arch *arch, int vcpu_fd, struct vcpu_load load, struct vcpu_timer *timer,
		   const void *data, size_t len, struct err *err);
