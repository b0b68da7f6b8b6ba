/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's own statistics of a VM and of its vCPUs: exits by what caused them, interrupts that were injected, and others
 * (KVM_GET_STATS_FD, Documentation/virt/kvm/api.rst section 4.133). A kernel before 5.14 has none.
 */
#pragma once

#include "core/util.h"

#define KVM_STATS_NAME 48u

enum kvm_stats_type { KVM_STATS_COUNTER, KVM_STATS_GAUGE, KVM_STATS_PEAK };

struct kvm_stat {
	const char *name; /* as the kernel has it: "halt_exits" */
	enum kvm_stats_type type;
	uint64_t value;
};

/*
 * The descriptor of a VM's or a vCPU's statistics, -1: there are none. For a vCPU this waits until it leaves the guest,
 * so it is called before it runs; to read never waits.
 */
int kvm_stats_open(int fd);

/*
 * Calls fn for each statistic of the count descriptors, which are of one kind (-1: skipped): the sum of all, or the
 * largest of a peak. Histograms are left out. Does nothing if the kernel has none.
 */
void kvm_stats_each(const int *fds, size_t count, void (*fn)(void *opaque, const struct kvm_stat *stat), void *opaque);
