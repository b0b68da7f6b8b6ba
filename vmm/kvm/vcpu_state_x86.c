/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saves and loads the state of a vCPU (Documentation/virt/kvm/api.rst), except kvmclock and TSC: clock_x86.c loads them
 * before. vcpu_record_x86.c has the fields of the record.
 *
 * KVM requires this order of loading: what virtualization the guest's CPU can do, which cannot be changed while the
 * guest uses it; the processor's mode before the registers that it makes valid; the nested state; the local APIC after
 * its base MSR, which selects xAPIC or x2APIC, events last; the deadline of its timer is set when the guest runs. A save reads the
 * multiprocessing state first: KVM then processes pending INITs and SIPIs, which changes registers.
 *
 * KVM lists its MSRs. An MSR that is loaded and that this KVM does not have must be zero, as on a processor without it.
 */
#include "vmm/kvm/vcpu_arch.h"
#include "vmm/kvm/vcpu_record_x86.h"

#include <sys/ioctl.h>

#define MAX_MSRS VCPU_RECORD_MSRS
#define MSRS_A_CALL 128u /* KVM takes less than 256 */

#define MSR_TSC 0x10u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_FEATURE_CONTROL 0x3au
#define MSR_VMX_FIRST 0x480u /* what virtualization the guest's CPU can do */
#define MSR_VMX_LAST 0x493u
#define MSR_KVM_OLD_WALL_CLOCK 0x11u /* these and MSR_KVM_FIRST to LAST have addresses that KVM writes to */
#define MSR_KVM_OLD_SYSTEM_TIME 0x12u
#define MSR_KVM_FIRST 0x4b564d00u
#define MSR_KVM_LAST 0x4b564dffu
#define MSR_HYPERV_FIRST 0x40000000u /* no guest sees these */
#define MSR_HYPERV_LAST 0x400000ffu

#define LAPIC_TASK_PRIORITY 0x80u
#define LAPIC_PRIORITY 0xa0u
#define LAPIC_IN_SERVICE 0x100u

/* Kernel headers before Linux 6.18 do not have it: the shadow stack pointer, 64 bits, of KVM's own registers. */
#define REG_GUEST_SSP 0x2030000300000000ull

/* What this KVM supports. */
struct vcpu_arch {
	struct kvm *kvm;
	uint32_t xsave_size;
	bool sregs2, xcrs, nested, one_reg;
	uint32_t msr_count;
	uint32_t msrs[MAX_MSRS]; /* listed by KVM, and not yet found unreadable */
};

struct vcpu_subject {
	struct vcpu_arch *arch;
	int fd;
	struct vcpu_load load;
	struct vcpu_timer *timer;
};

/* ---- which MSRs there are ---- */

static void vcpu_state_add_msr(struct vcpu_arch *arch, uint32_t index)
{
	if (index == MSR_TSC || index == MSR_TSC_DEADLINE || (index >= MSR_HYPERV_FIRST && index <= MSR_HYPERV_LAST) ||
	    arch->msr_count == MAX_MSRS)
		return;
	for (uint32_t i = 0; i < arch->msr_count; i++)
		if (arch->msrs[i] == index)
			return;
	arch->msrs[arch->msr_count++] = index;
}

/* Older kernels have the MTRRs but do not list them. */
static void vcpu_state_add_memory_types(struct vcpu_arch *arch)
{
	static const uint32_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
					 0x2ff};

	for (uint32_t msr = 0x200; msr < 0x210; msr++)
		vcpu_state_add_msr(arch, msr);
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		vcpu_state_add_msr(arch, fixed[i]);
}

static int vcpu_state_list_msrs(struct vcpu_arch *arch, struct err *err)
{
	_cleanup_(free_ptr) struct kvm_msr_list *list = calloc(1, sizeof(*list) + MAX_MSRS * sizeof(list->indices[0]));

	if (!list)
		return err_sys(err, -ENOMEM, "list of MSRs");
	list->nmsrs = MAX_MSRS;
	if (ioctl(arch->kvm->fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		return err_sys(err, -errno, "KVM_GET_MSR_INDEX_LIST");
	for (uint32_t i = 0; i < list->nmsrs; i++)
		vcpu_state_add_msr(arch, list->indices[i]);
	vcpu_state_add_memory_types(arch);
	return 0;
}

int vcpu_arch_create(struct kvm *kvm, struct vcpu_arch **ret, struct err *err)
{
	struct vcpu_arch *arch = calloc(1, sizeof(*arch));
	int xsave = kvm_check(kvm, KVM_CAP_XSAVE2), code;

	if (!arch)
		return err_sys(err, -ENOMEM, "vCPU state");
	arch->kvm = kvm;
	arch->sregs2 = kvm_check(kvm, KVM_CAP_SREGS2);
	arch->xcrs = kvm_check(kvm, KVM_CAP_XCRS);
	arch->nested = kvm_check(kvm, KVM_CAP_NESTED_STATE);
	arch->one_reg = kvm_check(kvm, KVM_CAP_ONE_REG);
	arch->xsave_size = (uint32_t)MAX(xsave, (int)sizeof(struct kvm_xsave));
	code = arch->xsave_size > VCPU_RECORD_XSAVE ?
	       err_set(err, -ENOTSUP, "the extended state has %u bytes, more than %u", arch->xsave_size, VCPU_RECORD_XSAVE) :
	       vcpu_state_list_msrs(arch, err);
	if (code < 0) {
		free(arch);
		return code;
	}
	*ret = arch;
	return 0;
}

void vcpu_arch_destroy(struct vcpu_arch *arch)
{
	free(arch);
}

/* ---- calls ---- */

static int vcpu_state_call(int fd, unsigned long request, void *arg, const char *name, struct err *err)
{
	return ioctl(fd, request, arg) < 0 ? err_sys(err, -errno, "%s", name) : 0;
}

#define CALL(request, arg) vcpu_state_call(fd, request, arg, #request, err)

/* KVM processes the entries in order and stops at the first that it refuses; *done is the number before that. */
static int vcpu_state_call_msrs(int fd, unsigned long request, struct kvm_msr_entry *entries, uint32_t count,
				uint32_t *done)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[MSRS_A_CALL];
	} arg = {.head.nmsrs = MIN(count, MSRS_A_CALL)};
	int ret;

	memcpy(arg.entries, entries, arg.head.nmsrs * sizeof(*entries));
	ret = ioctl(fd, request, &arg);
	if (ret < 0)
		return -errno;
	memcpy(entries, arg.entries, (size_t)ret * sizeof(*entries));
	*done = (uint32_t)ret;
	return 0;
}

/* ---- save ---- */

static int vcpu_state_get_sregs(const struct vcpu_arch *arch, int fd, struct kvm_sregs2 *ret, struct err *err)
{
	struct kvm_sregs sregs;
	int code;

	if (arch->sregs2)
		return CALL(KVM_GET_SREGS2, ret);
	code = CALL(KVM_GET_SREGS, &sregs);
	/* Both structures begin alike; the interrupt at the end of the older one is also in the events. */
	if (code == 0)
		memcpy(ret, &sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
	return code;
}

static int vcpu_state_get_xcr0(const struct vcpu_arch *arch, int fd, uint64_t *ret, struct err *err)
{
	struct kvm_xcrs xcrs = {0};
	int code = arch->xcrs ? CALL(KVM_GET_XCRS, &xcrs) : 0;

	for (uint32_t i = 0; i < xcrs.nr_xcrs && code == 0; i++)
		if (xcrs.xcrs[i].xcr == 0)
			*ret = xcrs.xcrs[i].value;
	return code;
}

static int vcpu_state_get_xsave(const struct vcpu_arch *arch, int fd, struct vcpu_record *state, struct err *err)
{
	state->xsave_len = arch->xsave_size;
	if (arch->xsave_size > sizeof(struct kvm_xsave))
		return CALL(KVM_GET_XSAVE2, state->xsave);
	return CALL(KVM_GET_XSAVE, state->xsave);
}

/* Whether the nested state differs from that of a vCPU that has not enabled virtualization. */
static bool vcpu_state_has_guests(const struct kvm_nested_state *state)
{
	if (state->size > sizeof(*state))
		return true;
	if (state->format == KVM_STATE_NESTED_FORMAT_SVM)
		return state->flags != KVM_STATE_NESTED_GIF_SET;
	return state->flags || state->hdr.vmx.vmxon_pa != UINT64_MAX;
}

static struct vcpu_nested vcpu_state_nested_of(const struct kvm_nested_state *from)
{
	struct vcpu_nested nested = {.format = from->format, .flags = from->flags,
				     .data_len = from->size - (uint32_t)sizeof(*from)};

	if (from->format == KVM_STATE_NESTED_FORMAT_SVM) {
		nested.vmcb = from->hdr.svm.vmcb_pa;
	} else {
		nested.vmxon = from->hdr.vmx.vmxon_pa;
		nested.vmcs = from->hdr.vmx.vmcs12_pa;
		nested.smm_flags = from->hdr.vmx.smm.flags;
		nested.vmx_flags = from->hdr.vmx.flags;
		nested.preemption_deadline = from->hdr.vmx.preemption_timer_deadline;
	}
	memcpy(nested.data, (const char *)from + sizeof(*from), nested.data_len);
	return nested;
}

static int vcpu_state_get_nested(const struct vcpu_arch *arch, int fd, struct vcpu_record *state, struct err *err)
{
	_cleanup_(free_ptr) struct kvm_nested_state *nested = arch->nested ? calloc(1, VCPU_RECORD_NESTED) : NULL;
	int code;

	if (!arch->nested)
		return 0;
	if (!nested)
		return err_sys(err, -ENOMEM, "nested state");
	nested->size = VCPU_RECORD_NESTED;
	code = CALL(KVM_GET_NESTED_STATE, nested);
	if (code < 0 || !vcpu_state_has_guests(nested))
		return code;
	if (nested->size < sizeof(*nested) || nested->size > VCPU_RECORD_NESTED)
		return err_set(err, -ENOTSUP, "nested state of %u bytes", nested->size);
	state->nested[0] = vcpu_state_nested_of(nested);
	state->nested_count = 1;
	return 0;
}

/* EINVAL: the guest's CPU has no shadow stacks. */
static int vcpu_state_get_ssp(const struct vcpu_arch *arch, int fd, uint64_t *ret, struct err *err)
{
	struct kvm_one_reg reg = {.id = REG_GUEST_SSP, .addr = (uintptr_t)ret};

	if (!arch->one_reg || ioctl(fd, KVM_GET_ONE_REG, &reg) == 0 || errno == EINVAL)
		return 0;
	return err_sys(err, -errno, "KVM_GET_ONE_REG: shadow stack pointer");
}

/* KVM updates the processor priority register only when it is read or loaded (Intel SDM volume 3, "Task and Processor
 * Priorities"). Computes its value, so that the saved one is up to date. */
static void vcpu_state_settle_priority(struct kvm_lapic_state *lapic)
{
	uint8_t *regs = (uint8_t *)lapic->regs;
	uint32_t task = get_le32(regs + LAPIC_TASK_PRIORITY) & 0xff, vector = 0;

	for (unsigned int i = 0; i < 8; i++) {
		uint32_t in_service = get_le32(regs + LAPIC_IN_SERVICE + 16 * i);

		if (in_service)
			vector = 32 * i + 31 - (uint32_t)__builtin_clz(in_service);
	}
	put_le32(regs + LAPIC_PRIORITY, (task & 0xf0) >= (vector & 0xf0) ? task : vector & 0xf0);
}

/* Removes an MSR that cannot be read from the list. */
static int vcpu_state_get_msrs(struct vcpu_arch *arch, int fd, struct vcpu_record *state, struct err *err)
{
	uint32_t at = 0, done;

	for (uint32_t i = 0; i < arch->msr_count; i++)
		state->msrs[i].index = arch->msrs[i];
	while (at < arch->msr_count) {
		uint32_t asked = MIN(arch->msr_count - at, MSRS_A_CALL);
		int code = vcpu_state_call_msrs(fd, KVM_GET_MSRS, state->msrs + at, asked, &done);

		if (code < 0)
			return err_sys(err, code, "KVM_GET_MSRS");
		at += done;
		if (done == asked)
			continue;
		arch->msr_count--;
		memmove(&arch->msrs[at], &arch->msrs[at + 1], (arch->msr_count - at) * sizeof(arch->msrs[0]));
		memmove(&state->msrs[at], &state->msrs[at + 1], (arch->msr_count - at) * sizeof(state->msrs[0]));
	}
	state->msr_count = arch->msr_count;
	return 0;
}

static int vcpu_state_collect(void *object, void *into, struct err *err)
{
	struct vcpu_subject *vcpu = object;
	struct vcpu_record *state = into;
	struct kvm_msr_entry deadline = {.index = MSR_TSC_DEADLINE};
	int fd = vcpu->fd, code = CALL(KVM_GET_MP_STATE, &state->mp_state);
	uint32_t done;

	code = code ?: CALL(KVM_GET_VCPU_EVENTS, &state->events);
	code = code ?: CALL(KVM_GET_REGS, &state->regs);
	code = code ?: vcpu_state_get_sregs(vcpu->arch, fd, &state->sregs, err);
	code = code ?: vcpu_state_get_xsave(vcpu->arch, fd, state, err);
	code = code ?: vcpu_state_get_xcr0(vcpu->arch, fd, &state->xcr0, err);
	code = code ?: vcpu_state_get_nested(vcpu->arch, fd, state, err);
	code = code ?: vcpu_state_get_msrs(vcpu->arch, fd, state, err);
	code = code ?: vcpu_state_get_ssp(vcpu->arch, fd, &state->ssp, err);
	code = code ?: CALL(KVM_GET_LAPIC, &state->lapic);
	vcpu_state_settle_priority(&state->lapic);
	code = code ?: CALL(KVM_GET_DEBUGREGS, &state->debugregs);
	if (code == 0 && vcpu_state_call_msrs(fd, KVM_GET_MSRS, &deadline, 1, &done) == 0 && done)
		state->tsc_deadline = deadline.data;
	vcpu_arch_save_timer(vcpu->timer, &state->lapic, &state->tsc_deadline);
	return code ?: vcpu_record_check(state, err);
}

/* ---- load ---- */

/* Where an MSR is in KVM's list; its length: nowhere. A record of the same KVM has all of them in this order, so that it
 * is where the one before it leads to. */
static uint32_t vcpu_state_find_msr(const struct vcpu_arch *arch, uint32_t index, uint32_t likely)
{
	if (likely < arch->msr_count && arch->msrs[likely] == index)
		return likely;
	for (uint32_t i = 0; i < arch->msr_count; i++)
		if (arch->msrs[i] == index)
			return i;
	return arch->msr_count;
}

static int vcpu_state_judge_msrs(const struct vcpu_arch *arch, const struct vcpu_record *state, struct err *err)
{
	bool seen[MAX_MSRS] = {false};

	for (uint32_t i = 0, at = 0; i < state->msr_count; i++, at++) {
		const struct kvm_msr_entry *msr = &state->msrs[i];

		at = vcpu_state_find_msr(arch, msr->index, at);
		if (at < arch->msr_count && seen[at])
			return err_set(err, -EBADMSG, "MSR 0x%x twice", msr->index);
		if (at < arch->msr_count)
			seen[at] = true;
		else if (msr->data)
			return err_set(err, -ENOTSUP, "this host's KVM has no MSR 0x%x, which is 0x%llx", msr->index,
				       (unsigned long long)msr->data);
	}
	return 0;
}

/* The part of the extended state beyond KVM's own must be empty. */
static int vcpu_state_judge_xsave(const struct vcpu_arch *arch, const struct vcpu_record *state, struct err *err)
{
	for (uint32_t at = arch->xsave_size; at < state->xsave_len; at++)
		if (state->xsave[at])
			return err_set(err, -ENOTSUP, "the extended state has %u bytes, this host's %u",
				       state->xsave_len, arch->xsave_size);
	return 0;
}

static int vcpu_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct vcpu_arch *arch = ((const struct vcpu_subject *)object)->arch;
	const struct vcpu_record *state = loaded;
	int code = vcpu_record_check(state, err);

	code = code ?: vcpu_state_judge_msrs(arch, state, err);
	code = code ?: vcpu_state_judge_xsave(arch, state, err);
	if (code < 0)
		return code;
	if (state->nested_count && !arch->nested)
		return err_set(err, -ENOTSUP,
			       "the guest runs nested guests, and this host's KVM cannot load their state");
	if (state->ssp && !arch->one_reg)
		return err_set(err, -ENOTSUP, "the guest uses a shadow stack, and this host's KVM cannot load its "
					      "pointer");
	return 0;
}

static int vcpu_state_set_sregs(const struct vcpu_arch *arch, int fd, const struct kvm_sregs2 *from, struct err *err)
{
	struct kvm_sregs2 sregs2 = *from;
	struct kvm_sregs sregs = {0};

	if (arch->sregs2)
		return CALL(KVM_SET_SREGS2, &sregs2);
	memcpy(&sregs, from, offsetof(struct kvm_sregs, interrupt_bitmap));
	return CALL(KVM_SET_SREGS, &sregs);
}

static int vcpu_state_set_xcr0(const struct vcpu_arch *arch, int fd, uint64_t value, struct err *err)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = value};

	/* XCR0 is zero on a processor without XSAVE. */
	return arch->xcrs && value ? CALL(KVM_SET_XCRS, &xcrs) : 0;
}

/* KVM reads an area of its own size, which may be larger than the saved one. */
static int vcpu_state_set_xsave(const struct vcpu_arch *arch, int fd, const struct vcpu_record *state, struct err *err)
{
	_cleanup_(free_ptr) uint8_t *area = calloc(1, arch->xsave_size);

	if (!area)
		return err_sys(err, -ENOMEM, "extended state");
	memcpy(area, state->xsave, MIN(state->xsave_len, arch->xsave_size));
	return CALL(KVM_SET_XSAVE, area);
}

/* A trial loaded nested state: back to a vCPU that has not enabled virtualization. */
static int vcpu_state_leave_nested(const struct vcpu_arch *arch, int fd, struct err *err)
{
	_cleanup_(free_ptr) struct kvm_nested_state *nested = calloc(1, VCPU_RECORD_NESTED);
	int code;

	if (!nested)
		return err_sys(err, -ENOMEM, "nested state");
	nested->size = VCPU_RECORD_NESTED;
	code = arch->nested ? CALL(KVM_GET_NESTED_STATE, nested) : 0;
	if (code < 0 || !arch->nested || !vcpu_state_has_guests(nested))
		return code;
	*nested = (struct kvm_nested_state){.format = nested->format, .size = sizeof(*nested)};
	if (nested->format == KVM_STATE_NESTED_FORMAT_SVM)
		nested->flags = KVM_STATE_NESTED_GIF_SET;
	else
		nested->hdr.vmx.vmxon_pa = nested->hdr.vmx.vmcs12_pa = UINT64_MAX;
	return CALL(KVM_SET_NESTED_STATE, nested);
}

/* KVM compares a nested guest's own nested state with guest memory, which a trial may not have yet. */
static bool vcpu_state_can_try_nested(const struct vcpu_nested *nested)
{
	return nested->format != KVM_STATE_NESTED_FORMAT_VMX || nested->data_len <= KVM_STATE_NESTED_VMX_VMCS_SIZE;
}

static void vcpu_state_put_nested(const struct vcpu_nested *from, struct kvm_nested_state *ret)
{
	ret->format = from->format;
	ret->flags = from->flags;
	ret->size = (uint32_t)sizeof(*ret) + from->data_len;
	if (from->format == KVM_STATE_NESTED_FORMAT_SVM) {
		ret->hdr.svm.vmcb_pa = from->vmcb;
	} else {
		ret->hdr.vmx.vmxon_pa = from->vmxon;
		ret->hdr.vmx.vmcs12_pa = from->vmcs;
		ret->hdr.vmx.smm.flags = from->smm_flags;
		ret->hdr.vmx.flags = from->vmx_flags;
		ret->hdr.vmx.preemption_timer_deadline = from->preemption_deadline;
	}
	memcpy((char *)ret + sizeof(*ret), from->data, from->data_len);
}

static int vcpu_state_set_nested(const struct vcpu_subject *vcpu, const struct vcpu_record *state, struct err *err)
{
	_cleanup_(free_ptr) struct kvm_nested_state *nested = NULL;
	int fd = vcpu->fd;

	if (!state->nested_count || (vcpu->load.trial && !vcpu_state_can_try_nested(&state->nested[0])))
		return 0;
	nested = calloc(1, VCPU_RECORD_NESTED);
	if (!nested)
		return err_sys(err, -ENOMEM, "nested state");
	vcpu_state_put_nested(&state->nested[0], nested);
	return CALL(KVM_SET_NESTED_STATE, nested);
}

static int vcpu_state_set_ssp(const struct vcpu_subject *vcpu, uint64_t value, struct err *err)
{
	struct kvm_one_reg reg = {.id = REG_GUEST_SSP, .addr = (uintptr_t)&value};

	if (!vcpu->arch->one_reg || (vcpu->load.fresh && !value) || ioctl(vcpu->fd, KVM_SET_ONE_REG, &reg) == 0 || (!value && errno == EINVAL))
		return 0;
	return err_sys(err, -errno, "KVM_SET_ONE_REG: shadow stack pointer");
}

/* KVM refuses these while the guest uses virtualization, and needs them before the nested state. */
static bool vcpu_state_goes_first(uint32_t index)
{
	return index == MSR_FEATURE_CONTROL || (index >= MSR_VMX_FIRST && index <= MSR_VMX_LAST);
}

/* Guest memory is not a trial's to write. */
static bool vcpu_state_writes_memory(uint32_t index)
{
	return index == MSR_KVM_OLD_WALL_CLOCK || index == MSR_KVM_OLD_SYSTEM_TIME ||
	       (index >= MSR_KVM_FIRST && index <= MSR_KVM_LAST);
}

/* Copies the state's MSRs that this KVM has to ret, those that go first or the others; returns their number. */
static uint32_t vcpu_state_pick_msrs(const struct vcpu_subject *vcpu, const struct vcpu_record *state, bool first,
				     struct kvm_msr_entry *ret)
{
	const struct vcpu_arch *arch = vcpu->arch;
	const struct kvm_msr_entry *msr = state->msrs;
	uint32_t count = 0;

	for (uint32_t i = 0, at = 0; i < state->msr_count; i++, at++) {
		at = vcpu_state_find_msr(arch, msr[i].index, at);
		if (at < arch->msr_count && vcpu_state_goes_first(msr[i].index) == first &&
		    !(vcpu->load.trial && vcpu_state_writes_memory(msr[i].index)))
			ret[count++] = (struct kvm_msr_entry){.index = msr[i].index, .data = msr[i].data};
	}
	return count;
}

/* An MSR that cannot be set is ignored if it is zero. */
static int vcpu_state_write_msrs(int fd, struct kvm_msr_entry *msrs, uint32_t count, struct err *err)
{
	uint32_t at = 0, done;

	while (at < count) {
		uint32_t asked = MIN(count - at, MSRS_A_CALL);
		int code = vcpu_state_call_msrs(fd, KVM_SET_MSRS, msrs + at, asked, &done);

		if (code < 0)
			return err_sys(err, code, "KVM_SET_MSRS");
		at += done;
		if (done == asked)
			continue;
		if (msrs[at].data)
			return err_set(err, -ENOTSUP, "this host's KVM does not accept 0x%llx for MSR 0x%x",
				       (unsigned long long)msrs[at].data, msrs[at].index);
		at++;
	}
	return 0;
}

static int vcpu_state_set_msrs(const struct vcpu_subject *vcpu, const struct vcpu_record *state, bool first,
			       struct err *err)
{
	_cleanup_(free_ptr) struct kvm_msr_entry *msrs = calloc(MAX(state->msr_count, 1u), sizeof(*msrs));

	return msrs ? vcpu_state_write_msrs(vcpu->fd, msrs, vcpu_state_pick_msrs(vcpu, state, first, msrs), err) :
	       err_sys(err, -ENOMEM, "MSRs");
}

static int vcpu_state_set_modes(const struct vcpu_subject *vcpu, const struct vcpu_record *state, struct err *err)
{
	const struct vcpu_arch *arch = vcpu->arch;
	struct kvm_regs regs = state->regs;
	int fd = vcpu->fd, code = vcpu->load.fresh ? 0 : vcpu_state_leave_nested(arch, fd, err);

	code = code ?: vcpu_state_set_msrs(vcpu, state, true, err);
	code = code ?: vcpu_state_set_sregs(arch, fd, &state->sregs, err);
	code = code ?: vcpu_state_set_nested(vcpu, state, err);
	code = code ?: CALL(KVM_SET_REGS, &regs);
	code = code ?: vcpu_state_set_xsave(arch, fd, state, err);
	code = code ?: vcpu_state_set_xcr0(arch, fd, state->xcr0, err);
	code = code ?: vcpu_state_set_msrs(vcpu, state, false, err);
	return code ?: vcpu_state_set_ssp(vcpu, state->ssp, err);
}

/* After a reset, they have these values (Intel SDM volume 3, "Processor State After Reset"). */
static bool vcpu_state_debugs(const struct kvm_debugregs *regs)
{
	return regs->db[0] | regs->db[1] | regs->db[2] | regs->db[3] || regs->dr6 != 0xffff0ff0 || regs->dr7 != 0x400;
}

static int vcpu_state_set_debugregs(const struct vcpu_subject *vcpu, const struct kvm_debugregs *from, struct err *err)
{
	struct kvm_debugregs debugregs = *from;
	int fd = vcpu->fd;

	return vcpu->load.fresh && !vcpu_state_debugs(from) ? 0 : CALL(KVM_SET_DEBUGREGS, &debugregs);
}

static int vcpu_state_loaded(void *object, const void *loaded, struct err *err)
{
	struct vcpu_subject *vcpu = object;
	const struct vcpu_record *state = loaded;
	struct kvm_lapic_state lapic = state->lapic;
	struct kvm_vcpu_events events = state->events;
	struct kvm_mp_state mp_state = state->mp_state;
	int fd = vcpu->fd, code = vcpu_state_set_modes(vcpu, state, err);

	code = code ?: CALL(KVM_SET_LAPIC, &lapic);
	code = code ?: vcpu_state_set_debugregs(vcpu, &state->debugregs, err);
	code = code ?: CALL(KVM_SET_MP_STATE, &mp_state);
	code = code ?: CALL(KVM_SET_VCPU_EVENTS, &events);
	if (code == 0 && !vcpu->load.trial)
		vcpu_arch_load_timer(vcpu->timer, &state->lapic, state->tsc_deadline);
	return code;
}

static const struct state_table vcpu_state = {
	.name = VCPU_RECORD_NAME, .version = VCPU_RECORD_VERSION, .oldest = VCPU_RECORD_OLDEST,
	STATE_FIELDS(vcpu_record_fields), STATE_APART(struct vcpu_record),
	.collect = vcpu_state_collect, .judge = vcpu_state_judge, .loaded = vcpu_state_loaded,
};

int vcpu_arch_save(struct vcpu_arch *arch, int vcpu_fd, const struct vcpu_timer *timer, struct state_buffer *out,
		   struct err *err)
{
	struct vcpu_timer now = *timer;
	struct vcpu_subject vcpu = {.arch = arch, .fd = vcpu_fd, .timer = &now};

	return state_save(&vcpu_state, &vcpu, out, err);
}

int vcpu_arch_load(struct vcpu_arch *arch, int vcpu_fd, struct vcpu_load load, struct vcpu_timer *timer,
		   const void *data, size_t len, struct err *err)
{
	struct vcpu_subject vcpu = {.arch = arch, .fd = vcpu_fd, .load = load, .timer = timer};

	return state_load(&vcpu_state, &vcpu, data, len, err);
}
