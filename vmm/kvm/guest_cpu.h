/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's CPU: its features are computed once and set on every vCPU (cpuid_x86.c), and transferred with the guest
 * to another host (cpuid_offer_x86.c).
 */
#pragma once

#include "core/log.h"
#include "vmm/config/config.h"
#include "vmm/kvm/kvm.h"

#include <jansson.h>

struct guest_cpu;

/*
 * The host's CPU without the masked features and without what config hides; -EINVAL: a feature is unknown; -ENOTSUP: KVM does
 * not offer what config asks for. config NULL: all that KVM offers. It does not need a VM.
 */
int guest_cpu_create(struct kvm *kvm, unsigned int cpus, const struct cpu_config *config, struct guest_cpu **ret,
		     struct err *err);
/* Makes the VM follow this CPU, before its vCPUs are created. */
int guest_cpu_bind(struct kvm *kvm, struct guest_cpu *model, const struct cpu_config *config, struct err *err);
void guest_cpu_destroy(struct guest_cpu *model);
/* tsc_khz: the rate of the guest's TSC. */
int guest_cpu_apply(const struct guest_cpu *model, int vcpu_fd, unsigned int index, unsigned int tsc_khz,
		    struct err *err);
/* The APIC id of a vCPU, as in the guest's tables. */
uint32_t guest_cpu_apic_id(const struct guest_cpu *model, unsigned int index);
/* The host's width of guest-physical addresses, in bits. */
unsigned int guest_cpu_phys_bits(const struct guest_cpu *model);
/* Whether CPUID shows the guest an invariant TSC. */
bool guest_cpu_stable_tsc(const struct guest_cpu *model);
/* Whether it shows the guest kvmclock. */
bool guest_cpu_has_kvmclock(const struct guest_cpu *model);

/*
 * The CPU of a guest that moves (cpuid_offer_x86.c): guest_cpu_read makes exactly the same CPU from the object that
 * guest_cpu_write returned, and guest_cpu_adopt finds out whether it can be had here. -EINVAL names the features that
 * this host's KVM does not support and says remedy, what can be done, -EBADMSG: invalid. The object comes from a peer.
 * force: features that are missing are logged instead; nothing else is forced.
 *
 * The object names the host. A CPU that has run on this very host is known, and adopted without being compared, which
 * takes half a millisecond. A peer that gives a wrong name shows the guest features that it cannot use, and harms that
 * alone.
 */
int guest_cpu_write(const struct guest_cpu *model, json_t **ret, struct err *err);
int guest_cpu_read(unsigned int cpus, const json_t *offered, struct guest_cpu **ret, struct err *err);
/* What an offered CPU shows of that which config may hide, for the offer of a program that had no such choice. An invalid
 * CPU changes nothing; guest_cpu_read refuses it. */
void guest_cpu_choices(const json_t *offered, struct cpu_config *config);
bool guest_cpu_known(const struct guest_cpu *model);
int guest_cpu_adopt(struct kvm *kvm, struct guest_cpu *model, bool force, const char *remedy, const struct log *log,
		    struct err *err);
