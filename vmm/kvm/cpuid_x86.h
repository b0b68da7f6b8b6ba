/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by cpuid_x86.c, which makes the guest's CPU, cpuid_offer_x86.c, which transfers it, and cpuid_host_x86.c. */
#pragma once

#include "vmm/kvm/cpuid_table_x86.h"

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

/* What this host is called with this CPU (cpuid_host_x86.c); "": it cannot be told from another one. */
#define CPUID_HOST_NAME 64u
void cpuid_host_name(const struct guest_cpu *model, char ret[CPUID_HOST_NAME]);
/* Fetches what AMX needs from Linux (cpuid_x86.c). */
void cpuid_ask_for_tiles(struct kvm *kvm);
bool cpuid_has_named(const struct guest_cpu *model, const char *name);
