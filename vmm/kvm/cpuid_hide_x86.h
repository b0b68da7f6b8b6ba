/* SPDX-License-Identifier: Apache-2.0 */
/* What KVM offers and the guest does not get (cpuid_hide_x86.c). */
#pragma once

#include "vmm/kvm/cpuid_table_x86.h"

/* Removes what the guest does not get. -ENOTSUP: config asks for what KVM does not offer. */
int cpuid_hide(struct kvm *kvm, struct guest_cpu *model, const struct cpu_config *config, struct err *err);
/* Before KVM_SET_CPUID2: makes KVM follow CPUID. */
int cpuid_hide_vcpu(const struct guest_cpu *model, int vcpu_fd, struct err *err);
/* Whether CPUID shows nested virtualization; performance counters, but for AMD's four oldest ones, which it does not show. */
bool cpuid_hide_shows_nested(const struct guest_cpu *model);
bool cpuid_hide_shows_pmu(const struct guest_cpu *model);
