/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by cpuid_x86.c, which makes the guest's CPU, cpuid_offer_x86.c, which transfers it, and cpuid_host_x86.c. */
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
	struct kvm_cpuid2 *cpuid; /* room for CPUID_MAX_ENTRIES */
};

struct cpuid_feature {
	const char *name;
	uint32_t leaf, index;
	enum cpuid_reg reg;
	uint8_t bit;
	const char *needs; /* the feature that it depends on */
};

/* Names are those of /proc/cpuinfo. A feature comes after the one that it depends on. */
extern const struct cpuid_feature cpuid_features[];
extern const size_t cpuid_feature_count;

/* An empty table, or NULL. */
struct guest_cpu *cpuid_alloc(unsigned int cpus);
/* NULL if there is no such entry. */
struct kvm_cpuid_entry2 *cpuid_find(const struct guest_cpu *model, uint32_t function, uint32_t index);
/* A register of an entry. */
uint32_t *cpuid_reg(struct kvm_cpuid_entry2 *entry, enum cpuid_reg reg);

/* What this host is called with this CPU (cpuid_host_x86.c); "": it cannot be told from another one. */
#define CPUID_HOST_NAME 64u
void cpuid_host_name(const struct guest_cpu *model, char ret[CPUID_HOST_NAME]);
/* Fetches what AMX needs from Linux (cpuid_x86.c). */
void cpuid_ask_for_tiles(struct kvm *kvm);
bool cpuid_has_named(const struct guest_cpu *model, const char *name);
