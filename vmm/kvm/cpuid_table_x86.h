/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's CPU as a table of CPUID's leaves: what the files of guest_cpu.h work on. */
#pragma once

#include "vmm/kvm/guest_cpu.h"

#define CPUID_MAX_ENTRIES 256u

enum cpuid_reg { EAX, EBX, ECX, EDX };

struct guest_cpu {
	unsigned int cpus;
	unsigned int phys_bits;
	uint64_t capabilities;     /* IA32_ARCH_CAPABILITIES (Intel SDM volume 4), if CPUID says that it exists */
	bool has_capabilities;     /* known: not for a CPU that an older source offered */
	bool known;                /* it was offered, and has run on this host */
	bool forced;               /* this host lacks a part of it */
	bool strict;               /* KVM gives the guest what CPUID shows and no more; not if an older program began it */
	bool enforce;              /* ... paravirtual features, too: guest_cpu_bind has found out that KVM can */
	struct kvm_cpuid2 *cpuid; /* room for CPUID_MAX_ENTRIES */
};

/* An empty table, or NULL. */
struct guest_cpu *cpuid_alloc(unsigned int cpus);
/* NULL if there is no such entry. */
struct kvm_cpuid_entry2 *cpuid_find(const struct guest_cpu *model, uint32_t function, uint32_t index);
/* A register of an entry. */
uint32_t *cpuid_reg(struct kvm_cpuid_entry2 *entry, enum cpuid_reg reg);
