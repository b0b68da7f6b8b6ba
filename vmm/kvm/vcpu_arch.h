/* SPDX-License-Identifier: Apache-2.0 */
/* The architecture's part of vcpu.c. Only vcpu.c calls it. */
#pragma once

#include "boot/boot.h"
#include "core/state.h"
#include "vmm/kvm/kvm.h"

/* Sets the registers of a new vCPU (vcpu_x86.c); entry is NULL for all but the first. */
int vcpu_arch_reset(struct kvm *kvm, int vcpu_fd, const struct boot_entry *entry, struct err *err);
/* Sets the TSC rate: *khz is the wanted rate, or 0 for the host's, which is then stored there. *host_khz: see
 * vcpu_set_host_tsc_khz. stable: CPUID tells the guest that the rate is constant. */
int vcpu_arch_set_tsc(struct kvm *kvm, int vcpu_fd, bool stable, unsigned int *khz, unsigned int *host_khz,
		      struct err *err);

/* Saves and loads a vCPU (vcpu_state_x86.c). create finds out what this KVM supports. NULL is fine for destroy. */
struct vcpu_arch;
int vcpu_arch_create(struct kvm *kvm, struct vcpu_arch **ret, struct err *err);
void vcpu_arch_destroy(struct vcpu_arch *arch);
int vcpu_arch_save(struct vcpu_arch *arch, int vcpu_fd, struct state_buffer *out, struct err *err);
int vcpu_arch_load(struct vcpu_arch *arch, int vcpu_fd, bool trial, const void *data, size_t len, struct err *err);
