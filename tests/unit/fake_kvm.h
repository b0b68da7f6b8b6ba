/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KVM of the tests' own. The program that links it has its open() and ioctl() in the place of the C library's: /dev/kvm,
 * VMs and vCPUs are memory files, whose state is kept here and is checked as the kernel checks it. All calls are recorded in
 * order, and the n-th can be made to fail. Any thread.
 */
#pragma once

#include "core/util.h"

#include <linux/kvm.h>

#define FAKE_KVM_VCPUS 8u
#define FAKE_KVM_MSRS 32u
#define FAKE_KVM_CALLS 2048u
#define FAKE_KVM_CAPS 256u
#define FAKE_KVM_RUN_SIZE 12288u
#define FAKE_KVM_REG_SSP 0x2030000300000000ull /* not in kernel headers before Linux 6.18 */

struct fake_vcpu {
	int fd, vm;       /* fd 0: none */
	unsigned int id;
	struct kvm_run *run;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs; /* KVM_GET_SREGS and KVM_SET_SREGS: without flags and pdptrs */
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_xcrs xcrs;
	struct {
		struct kvm_xsave base;
		uint8_t more[4096]; /* of KVM_CAP_XSAVE2 */
	} xsave;
	struct kvm_msr_entry msrs[FAKE_KVM_MSRS]; /* index 0: none */
	uint64_t ssp, runs;
	int64_t tsc_offset;
	unsigned int tsc_khz; /* as it was set, or the host's */
	uint8_t nested[8192] __attribute__((aligned(8))); /* a struct kvm_nested_state */
};

/* One call: what was asked of which descriptor; argument: an MSR's index (the first one), a capability, else 0. */
struct fake_call {
	unsigned long request;
	int fd;
	uint64_t argument;
};

struct fake_kvm {
	/* What it can do, and the host's clocks; the test sets them. */
	int caps[FAKE_KVM_CAPS];
	uint32_t msr_list[FAKE_KVM_MSRS];
	unsigned int msr_count;
	struct kvm_cpuid_entry2 cpuid[64]; /* of KVM_GET_SUPPORTED_CPUID */
	unsigned int cpuid_count;
	uint64_t xsave_parts; /* KVM_X86_XCOMP_GUEST_SUPP */
	bool intel;           /* nested state has Intel's form */
	bool shadow_stacks;   /* the guest's CPU has them */
	bool offsets;         /* KVM_VCPU_TSC_OFFSET */
	unsigned int host_khz, ratio_bits; /* ratio_bits: binary places of the ratio that scales a counter */
	uint64_t host_tsc, host_ns, realtime;
	/* Called by KVM_RUN: 0 with the exit in run, or -errno; NULL: runs until it is interrupted. No lock is held. */
	int (*guest)(struct fake_vcpu *vcpu, struct kvm_run *run);
	/* The so-manieth call from now on fails with that; 0: none. */
	unsigned int fail_at;
	unsigned long fail_request; /* only these are counted; 0: all */
	int fail_errno;
	unsigned long failed; /* the request that failed */
	/* What was asked. */
	struct fake_call calls[FAKE_KVM_CALLS];
	unsigned int call_count;
	unsigned int run_count; /* of KVM_RUN, of which the first are recorded */
	/* State. */
	struct fake_vcpu vcpus[FAKE_KVM_VCPUS];
	int64_t kvmclock_offset;
	struct kvm_pit_state2 pit;
	struct kvm_irqchip chips[3];
	unsigned int in_guest, most_in_guest; /* vCPUs inside KVM_RUN; of different VMs at once, at most */
};

extern struct fake_kvm fake_kvm;

/* All as new, a KVM that can do everything; closes what the program has left open. */
void fake_kvm_reset(void);
/* How many of its descriptors are open. */
unsigned int fake_kvm_open(void);
/* Fails the n-th call from now on (1: the next one); 0: none. */
void fake_kvm_fail(unsigned int n, int error);
/* ... of one request, which is the same call whatever other threads ask meanwhile. */
void fake_kvm_fail_request(unsigned long request, unsigned int n, int error);
/* How often that was asked since the reset. */
unsigned int fake_kvm_count(unsigned long request);
/* Where a request was called first after call `from`, or -1; argument as in struct fake_call, UINT64_MAX: any. */
int fake_kvm_find(unsigned int from, unsigned long request, uint64_t argument);
/* A vCPU by the order of creation, among those that are open. */
struct fake_vcpu *fake_kvm_vcpu(unsigned int index);
/* An MSR of a vCPU; it is added if it is not there. */
uint64_t *fake_kvm_msr(struct fake_vcpu *vcpu, uint32_t index);
/* What a guest reads: its counter and kvmclock now. */
uint64_t fake_kvm_tsc(const struct fake_vcpu *vcpu);
uint64_t fake_kvm_clock(void);
/* Lets time pass on the host. */
void fake_kvm_pass(uint64_t ns);
