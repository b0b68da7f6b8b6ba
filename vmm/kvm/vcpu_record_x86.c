/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a vCPU: its fields, and what may be in them. See vcpu_record_x86.h.
 *
 * Registers, segments, events and MSRs have a field each. The local APIC is its page of registers (Intel SDM volume 3,
 * "The Local APIC Block Diagram"); the extended state is the processor's area in its standard form (volume 1, chapter
 * 13), as long as the features that KVM gives need; for nested guests KVM has structures of its own, of any length.
 */
#include "vmm/kvm/vcpu_record_x86.h"

#define RFLAGS_RESERVED (~0x3fffffull | 1u << 15 | 1u << 5 | 1u << 3)
#define XSAVE_LEGACY 512u
#define XSAVE_HEADER 64u

/* Every bit that this program knows. */
#define EVENT_FLAGS \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW | \
	 KVM_VCPUEVENT_VALID_SMM | KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
#define SHADOW_FLAGS (KVM_X86_SHADOW_INT_MOV_SS | KVM_X86_SHADOW_INT_STI)
#define NESTED_FLAGS \
	(KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_EVMCS | \
	 KVM_STATE_NESTED_MTF_PENDING | KVM_STATE_NESTED_GIF_SET)
#define NESTED_SMM_FLAGS (KVM_STATE_NESTED_SMM_GUEST_MODE | KVM_STATE_NESTED_SMM_VMXON)

/* ---- registers ---- */

#define REG(name) STATE_UINT(struct kvm_regs, name, 1)
static const struct state_field regs_fields[] = {
	REG(rax), REG(rbx), REG(rcx), REG(rdx), REG(rsi), REG(rdi), REG(rsp), REG(rbp), REG(r8), REG(r9), REG(r10),
	REG(r11), REG(r12), REG(r13), REG(r14), REG(r15), REG(rip), REG(rflags),
};
static const struct state_table regs_table = {
	.name = "regs", .version = 1, .oldest = 1, STATE_FIELDS(regs_fields),
};

#define SEGMENT(name) STATE_UINT(struct kvm_segment, name, 1)
static const struct state_field segment_fields[] = {
	SEGMENT(base), SEGMENT(limit), SEGMENT(selector), SEGMENT(type), SEGMENT(present), SEGMENT(dpl), SEGMENT(db),
	SEGMENT(s), SEGMENT(l), SEGMENT(g), SEGMENT(avl), SEGMENT(unusable),
};
static const struct state_table segment_table = {
	.name = "segment", .version = 1, .oldest = 1, STATE_FIELDS(segment_fields),
};

static const struct state_field descriptors_fields[] = {
	STATE_UINT(struct kvm_dtable, base, 1),
	STATE_UINT(struct kvm_dtable, limit, 1),
};
static const struct state_table descriptors_table = {
	.name = "descriptors", .version = 1, .oldest = 1, STATE_FIELDS(descriptors_fields),
};

#define SREG(name) STATE_UINT(struct kvm_sregs2, name, 1)
#define SREG_SEGMENT(name) STATE_STRUCT(struct kvm_sregs2, name, 1, &segment_table)
static const struct state_field sregs_fields[] = {
	SREG_SEGMENT(cs), SREG_SEGMENT(ds), SREG_SEGMENT(es), SREG_SEGMENT(fs), SREG_SEGMENT(gs), SREG_SEGMENT(ss),
	SREG_SEGMENT(tr), SREG_SEGMENT(ldt),
	STATE_STRUCT(struct kvm_sregs2, gdt, 1, &descriptors_table),
	STATE_STRUCT(struct kvm_sregs2, idt, 1, &descriptors_table),
	SREG(cr0), SREG(cr2), SREG(cr3), SREG(cr4), SREG(cr8), SREG(efer), SREG(apic_base), SREG(flags),
	STATE_UINT_AS("pdptr0", struct kvm_sregs2, pdptrs[0], 1),
	STATE_UINT_AS("pdptr1", struct kvm_sregs2, pdptrs[1], 1),
	STATE_UINT_AS("pdptr2", struct kvm_sregs2, pdptrs[2], 1),
	STATE_UINT_AS("pdptr3", struct kvm_sregs2, pdptrs[3], 1),
};
static const struct state_table sregs_table = {
	.name = "sregs", .version = 1, .oldest = 1, STATE_FIELDS(sregs_fields),
};

static const struct state_field debug_fields[] = {
	STATE_UINT_AS("dr0", struct kvm_debugregs, db[0], 1),
	STATE_UINT_AS("dr1", struct kvm_debugregs, db[1], 1),
	STATE_UINT_AS("dr2", struct kvm_debugregs, db[2], 1),
	STATE_UINT_AS("dr3", struct kvm_debugregs, db[3], 1),
	STATE_UINT(struct kvm_debugregs, dr6, 1),
	STATE_UINT(struct kvm_debugregs, dr7, 1),
};
static const struct state_table debug_table = {
	.name = "debugregs", .version = 1, .oldest = 1, STATE_FIELDS(debug_fields),
};

static const struct state_field msr_fields[] = {
	STATE_UINT(struct kvm_msr_entry, index, 1),
	STATE_UINT_AS("value", struct kvm_msr_entry, data, 1),
};
static const struct state_table msr_table = {
	.name = "msr", .version = 1, .oldest = 1, STATE_FIELDS(msr_fields),
};

/* ---- events and nested guests ---- */

#define EVENT(name, member) STATE_UINT_AS(name, struct kvm_vcpu_events, member, 1)
static const struct state_field event_fields[] = {
	EVENT("flags", flags),
	EVENT("exception_injected", exception.injected), EVENT("exception_vector", exception.nr),
	EVENT("exception_has_error", exception.has_error_code), EVENT("exception_pending", exception.pending),
	EVENT("exception_error", exception.error_code), EVENT("exception_has_payload", exception_has_payload),
	EVENT("exception_payload", exception_payload),
	EVENT("interrupt_injected", interrupt.injected), EVENT("interrupt_vector", interrupt.nr),
	EVENT("interrupt_soft", interrupt.soft), EVENT("interrupt_shadow", interrupt.shadow),
	EVENT("nmi_injected", nmi.injected), EVENT("nmi_pending", nmi.pending), EVENT("nmi_masked", nmi.masked),
	EVENT("sipi_vector", sipi_vector),
	EVENT("smm", smi.smm), EVENT("smi_pending", smi.pending), EVENT("smm_inside_nmi", smi.smm_inside_nmi),
	EVENT("latched_init", smi.latched_init), EVENT("triple_fault", triple_fault.pending),
};
static const struct state_table event_table = {
	.name = "events", .version = 1, .oldest = 1, STATE_FIELDS(event_fields),
};

#define NESTED(name) STATE_UINT(struct vcpu_nested, name, 1)
static const struct state_field nested_fields[] = {
	NESTED(format), NESTED(flags), NESTED(vmxon), NESTED(vmcs), NESTED(preemption_deadline), NESTED(smm_flags),
	NESTED(vmx_flags), NESTED(vmcb), STATE_SOME_BYTES(struct vcpu_nested, data, 1, data_len),
};
static const struct state_table nested_table = {
	.name = "nested", .version = 1, .oldest = 1, STATE_FIELDS(nested_fields),
};

/* ---- the vCPU ---- */

const struct state_field vcpu_record_fields[12] = {
	STATE_UINT_AS("mp_state", struct vcpu_record, mp_state.mp_state, 3),
	STATE_STRUCT(struct vcpu_record, regs, 3, &regs_table),
	STATE_STRUCT(struct vcpu_record, sregs, 3, &sregs_table),
	STATE_UINT(struct vcpu_record, xcr0, 3),
	STATE_STRUCT(struct vcpu_record, debugregs, 3, &debug_table),
	STATE_STRUCT(struct vcpu_record, events, 3, &event_table),
	STATE_BYTES_AS("lapic", struct vcpu_record, lapic.regs, 3),
	STATE_UINT(struct vcpu_record, tsc_deadline, 3),
	STATE_UINT(struct vcpu_record, ssp, 3),
	STATE_SOME_BYTES(struct vcpu_record, xsave, 3, xsave_len),
	STATE_LIST(struct vcpu_record, nested, 3, nested_count, &nested_table),
	STATE_LIST(struct vcpu_record, msrs, 3, msr_count, &msr_table),
};

/* ---- what may be in it ---- */

static bool vcpu_record_has_mode(uint32_t mp_state)
{
	return mp_state <= KVM_MP_STATE_SIPI_RECEIVED || mp_state == KVM_MP_STATE_AP_RESET_HOLD;
}

static bool vcpu_record_is_segment(const struct kvm_segment *segment)
{
	return segment->type <= 15 && segment->dpl <= 3 &&
	       (segment->present | segment->db | segment->s | segment->l | segment->g | segment->avl |
		segment->unusable) <= 1;
}

static int vcpu_record_check_sregs(const struct kvm_sregs2 *sregs, struct err *err)
{
	const struct kvm_segment *const segments[] = {&sregs->cs, &sregs->ds, &sregs->es, &sregs->fs,
						      &sregs->gs, &sregs->ss, &sregs->tr, &sregs->ldt};

	for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
		if (!vcpu_record_is_segment(segments[i]))
			return err_set(err, -EBADMSG, "an invalid segment register");
	if (sregs->flags & ~(uint64_t)KVM_SREGS2_FLAGS_PDPTRS_VALID)
		return err_set(err, -EBADMSG, "unknown flags 0x%llx of the control registers",
			       (unsigned long long)sregs->flags);
	return 0;
}

static int vcpu_record_check_events(const struct kvm_vcpu_events *events, struct err *err)
{
	uint8_t yes_or_no = events->exception.injected | events->exception.has_error_code | events->exception.pending |
			    events->exception_has_payload | events->interrupt.injected | events->interrupt.soft |
			    events->nmi.injected | events->nmi.masked | events->smi.smm | events->smi.pending |
			    events->smi.smm_inside_nmi | events->smi.latched_init | events->triple_fault.pending;

	if (events->flags & ~(uint32_t)EVENT_FLAGS)
		return err_set(err, -EBADMSG, "unknown flags 0x%x of the events", events->flags);
	return yes_or_no <= 1 && !(events->interrupt.shadow & ~SHADOW_FLAGS) ? 0 :
	       err_set(err, -EBADMSG, "invalid events");
}

static int vcpu_record_check_nested(const struct vcpu_nested *nested, struct err *err)
{
	if (nested->format != KVM_STATE_NESTED_FORMAT_VMX && nested->format != KVM_STATE_NESTED_FORMAT_SVM)
		return err_set(err, -EBADMSG, "nested state of unknown format %u", nested->format);
	if (nested->flags & ~NESTED_FLAGS || nested->smm_flags & ~NESTED_SMM_FLAGS ||
	    nested->vmx_flags & ~KVM_STATE_VMX_PREEMPTION_TIMER_DEADLINE)
		return err_set(err, -EBADMSG, "unknown flags of the nested state");
	return 0;
}

/* The header of the extended state: which parts there are, that it is in the standard form, and reserved bytes. */
static int vcpu_record_check_xsave(const struct vcpu_record *record, struct err *err)
{
	if (record->xsave_len < XSAVE_LEGACY + XSAVE_HEADER)
		return err_set(err, -EBADMSG, "the extended state is truncated");
	for (uint32_t at = XSAVE_LEGACY + 8; at < XSAVE_LEGACY + XSAVE_HEADER; at++)
		if (record->xsave[at])
			return err_set(err, -EBADMSG, "the extended state has an invalid header");
	return 0;
}

int vcpu_record_check(const struct vcpu_record *record, struct err *err)
{
	int ret = vcpu_record_check_sregs(&record->sregs, err);

	ret = ret ?: vcpu_record_check_events(&record->events, err);
	ret = ret ?: record->nested_count ? vcpu_record_check_nested(&record->nested[0], err) : 0;
	ret = ret ?: vcpu_record_check_xsave(record, err);
	if (ret < 0)
		return ret;
	if (!vcpu_record_has_mode(record->mp_state.mp_state))
		return err_set(err, -EBADMSG, "unknown multiprocessing state %u", record->mp_state.mp_state);
	if (record->regs.rflags & RFLAGS_RESERVED)
		return err_set(err, -EBADMSG, "reserved bits of RFLAGS");
	return record->debugregs.flags ? err_set(err, -EBADMSG, "unknown flags of the debug registers") : 0;
}
