/* SPDX-License-Identifier: Apache-2.0 */
/* What the architecture does for vcpu.c; nobody else calls it. */
#pragma once

#include "boot/boot.h"
#include "core/state.h"
#include "vmm/kvm/kvm.h"

/* The registers of a fresh vCPU; entry is NULL for all but the first (vcpu_x86.c). */
int vcpu_arch_reset(struct kvm *kvm, int vcpu_fd, const struct boot_entry *entry, struct err *err);
/* The counter's rate: *khz is what was asked for, or 0 for the host's own, and becomes what it is; *host_khz is as for
 * vcpu_set_host_tsc_khz. stable: the guest was promised that it never changes. */
int vcpu_arch_set_tsc(struct kvm *kvm, int vcpu_fd, bool stable, unsigned int *khz, unsigned int *host_khz,
		      struct err *err);

/* Saving and loading a vCPU (vcpu_state_x86.c); what this KVM can tell is learned once. NULL is fine for destroy. */
struct vcpu_arch;
int vcpu_arch_create(struct kvm *kvm, struct vcpu_arch **ret, struct err *err);
void vcpu_arch_destroy(struct vcpu_arch *arch);
int vcpu_arch_save(struct vcpu_arch *arch, int vcpu_fd, struct state_buffer *out, struct err *err);
int vcpu_arch_load(struct vcpu_arch *arch, int vcpu_fd, bool trial, const void *data, size_t len, struct err *err);
