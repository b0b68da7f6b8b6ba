/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU's record has (vcpu_record_x86.c): the state that vcpu_state_x86.c gets from KVM and gives to it. In
 * memory it has the structures of linux/kvm.h; the record has fields of our own, so that either may grow.
 */
#pragma once

#include "core/state.h"

#include <linux/kvm.h>

#define VCPU_RECORD_MSRS 1024u
#define VCPU_RECORD_XSAVE 16384u
#define VCPU_RECORD_NESTED 16384u

/* The state of a guest that runs guests: what KVM_GET_NESTED_STATE returns, on Intel (vmx) or AMD (svm). */
struct vcpu_nested {
	uint16_t format, flags;
	uint64_t vmxon, vmcs, preemption_deadline; /* Intel; vmcs: the address of the current one */
	uint16_t smm_flags;
	uint32_t vmx_flags;
	uint64_t vmcb; /* AMD */
	uint32_t data_len;
	uint8_t data[VCPU_RECORD_NESTED - sizeof(struct kvm_nested_state)]; /* KVM's own copies of control structures */
};

struct vcpu_record {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	uint64_t xcr0;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	uint64_t tsc_deadline;
	uint64_t ssp;
	uint32_t xsave_len;    /* bytes */
	uint32_t nested_count; /* 0 or 1 */
	uint32_t msr_count;
	uint8_t xsave[VCPU_RECORD_XSAVE] __attribute__((aligned(8)));
	struct vcpu_nested nested[1];
	struct kvm_msr_entry msrs[VCPU_RECORD_MSRS];
};

/* The rows of the table of a vCPU's state, and what that is called. */
#define VCPU_RECORD_NAME "vcpu-x86"
#define VCPU_RECORD_VERSION 3u
#define VCPU_RECORD_OLDEST 3u
extern const struct state_field vcpu_record_fields[12];

/*
 * Whether all of it is known: no flag, mode or reserved bit that this program does not know, which KVM could have
 * returned, or a peer sent. Whether KVM supports it is not checked. -EBADMSG.
 */
int vcpu_record_check(const struct vcpu_record *record, struct err *err);
