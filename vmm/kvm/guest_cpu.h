/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU that a guest sees: its features are computed once and given to every vCPU (cpuid_x86.c), and travel with the
 * guest to another host (cpuid_offer_x86.c).
 */
#pragma once

#include "vmm/kvm/kvm.h"

#include <jansson.h>

struct guest_cpu;

/* The host's CPU without the features that are masked; -EINVAL: one of these is not known. No VM is needed for it. */
int guest_cpu_create(struct kvm *kvm, unsigned int cpus, char *const *masked, size_t masked_count,
		     struct guest_cpu **ret, struct err *err);
void guest_cpu_destroy(struct guest_cpu *model);
int guest_cpu_apply(const struct guest_cpu *model, int vcpu_fd, unsigned int index, struct err *err);
/* The interrupt controller id of a vCPU, as the tables tell it to the guest. */
uint32_t guest_cpu_apic_id(const struct guest_cpu *model, unsigned int index);
/* The host's width of guest-physical addresses, in bits. */
unsigned int guest_cpu_phys_bits(const struct guest_cpu *model);
/* Whether the guest's time stamp counter was promised to be stable. */
bool guest_cpu_stable_tsc(const struct guest_cpu *model);

/*
 * The CPU as it travels with a guest (cpuid_offer_x86.c): guest_cpu_write's object is what guest_cpu_adopt takes, on a
 * host whose KVM supports every feature in it; the guest then finds exactly the CPU that it had. -EINVAL names the
 * features that are missing, -EBADMSG: nonsense. The object is a peer's.
 */
int guest_cpu_write(const struct guest_cpu *model, json_t **ret, struct err *err);
int guest_cpu_adopt(struct kvm *kvm, unsigned int cpus, const json_t *offered, struct guest_cpu **ret, struct err *err);
