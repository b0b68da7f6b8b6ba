/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/kvm/vcpu_state_x86: what a vCPU has comes back on another one, in the order that KVM asks for; a trial is replaced by the
 * load after it and does not touch guest memory; each call of KVM may fail.
 */
#include "tests/unit/fake_kvm.h"
#include "tests/unit/test.h"
#include "vmm/kvm/vcpu_arch.h"

#include <sys/ioctl.h>

#define FEATURE_CONTROL 0x3au
#define VMX_BASIC 0x480u
#define VMX_PROCBASED 0x48eu
#define LSTAR 0xc0000082u
#define WALL_CLOCK 0x4b564d00u
#define SYSTEM_TIME 0x4b564d01u
#define DEADLINE 0x6e0u
#define EFER_SVME (1ull << 12)

static struct kvm kvm;
static struct vcpu_arch *arch;
static struct fake_vcpu *from, *to;
static struct state_buffer saved;
static struct vcpu_timer timer; /* of the other one */
static struct err err;

static void end(void)
{
	vcpu_arch_destroy(take_ptr(arch));
	state_buffer_free(&saved);
	fake_kvm_reset();
}

static struct fake_vcpu *add_vcpu(unsigned int id)
{
	CHECK(ioctl(kvm.vm_fd, KVM_CREATE_VCPU, (unsigned long)id) >= 0);
	return fake_kvm_vcpu(id);
}

/* Two vCPUs of one VM, the first of which has values everywhere. */
static void begin(bool intel)
{
	static const uint32_t msrs[] = {SYSTEM_TIME, VMX_PROCBASED, LSTAR, WALL_CLOCK, VMX_BASIC, FEATURE_CONTROL};

	end();
	fake_kvm.intel = intel;
	memcpy(fake_kvm.msr_list, msrs, sizeof(msrs));
	fake_kvm.msr_count = ARRAY_SIZE(msrs);
	CHECK_EQ(kvm_open(&kvm, &err), 0);
	CHECK_EQ(kvm_create_vm(&kvm, &err), 0);
	CHECK_EQ(vcpu_arch_create(&kvm, &arch, &err), 0);
	from = add_vcpu(0);
	to = add_vcpu(1);
	from->regs.rip = 0x1234;
	from->sregs.cr3 = 0x5678;
	from->xcrs.nr_xcrs = 1;
	from->xcrs.xcrs[0].value = 7;
	from->xsave.base.region[5] = 99;
	from->debugregs.db[1] = 11;
	from->mp_state.mp_state = KVM_MP_STATE_HALTED;
	from->events.nmi.pending = 1;
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++)
		*fake_kvm_msr(from, msrs[i]) = 0x1000 + i;
	*fake_kvm_msr(from, FEATURE_CONTROL) = intel ? 5 : 0;
	*fake_kvm_msr(from, DEADLINE) = 777;
}

/* The guest runs guests of its own. */
static void virtualize(struct fake_vcpu *vcpu, uint32_t size)
{
	struct kvm_nested_state *nested = (struct kvm_nested_state *)vcpu->nested;

	nested->size = size;
	nested->flags |= KVM_STATE_NESTED_GUEST_MODE;
	if (fake_kvm.intel)
		nested->hdr.vmx.vmxon_pa = nested->hdr.vmx.vmcs12_pa = 0x7000;
	else
		vcpu->sregs.efer |= EFER_SVME;
}

static bool virtualizes(const struct fake_vcpu *vcpu)
{
	return ((const struct kvm_nested_state *)vcpu->nested)->flags & KVM_STATE_NESTED_GUEST_MODE;
}

static int save(void)
{
	saved.len = 0;
	return vcpu_arch_save(arch, from->fd, &(struct vcpu_timer){0}, &saved, &err);
}

/* Each may follow others. */
static int load(bool trial)
{
	return vcpu_arch_load(arch, to->fd, (struct vcpu_load){.trial = trial}, &timer, saved.data, saved.len, &err);
}

static void move(void)
{
	int code = save();

	code = code ?: load(false);
	if (code)
		printf("# %s\n", err.text);
	CHECK_EQ(code, 0);
}

static void everything_arrives(void)
{
	begin(false);
	move();
	CHECK(memcmp(&to->regs, &from->regs, sizeof(to->regs)) == 0);
	CHECK(memcmp(&to->sregs, &from->sregs, sizeof(to->sregs)) == 0);
	CHECK(memcmp(&to->xsave, &from->xsave, sizeof(to->xsave)) == 0);
	CHECK(memcmp(&to->lapic, &from->lapic, sizeof(to->lapic)) == 0);
	CHECK_EQ(to->xcrs.xcrs[0].value, 7);
	CHECK_EQ(to->debugregs.db[1], 11);
	CHECK_EQ(to->mp_state.mp_state, KVM_MP_STATE_HALTED);
	CHECK_EQ(to->events.nmi.pending, 1);
	CHECK_EQ(*fake_kvm_msr(to, LSTAR), *fake_kvm_msr(from, LSTAR));
	CHECK_EQ(*fake_kvm_msr(to, SYSTEM_TIME), *fake_kvm_msr(from, SYSTEM_TIME));
	CHECK_EQ(timer.deadline, 777);
	CHECK_EQ(*fake_kvm_msr(to, DEADLINE), 0);
	CHECK_EQ(vcpu_arch_start_timer(to->fd, &timer, &err), 0);
	CHECK_EQ(*fake_kvm_msr(to, DEADLINE), 777);
}

/* What is as after a reset is not set again in one that has just been made. */
static void little_is_set_in_a_fresh_one(void)
{
	unsigned int at;

	begin(true);
	from->debugregs = (struct kvm_debugregs){.dr6 = 0xffff0ff0, .dr7 = 0x400};
	fake_kvm.shadow_stacks = true;
	CHECK_EQ(save(), 0);
	at = fake_kvm.call_count;
	CHECK_EQ(vcpu_arch_load(arch, to->fd, (struct vcpu_load){.fresh = true}, &timer, saved.data, saved.len, &err), 0);
	CHECK_EQ(fake_kvm_find(at, KVM_SET_DEBUGREGS, UINT64_MAX), -1);
	CHECK_EQ(fake_kvm_find(at, KVM_SET_ONE_REG, UINT64_MAX), -1);
	CHECK_EQ(fake_kvm_find(at, KVM_GET_NESTED_STATE, UINT64_MAX), -1);
	CHECK_EQ(load(false), 0);
	CHECK(fake_kvm_find(at, KVM_SET_DEBUGREGS, UINT64_MAX) >= 0 && fake_kvm_find(at, KVM_SET_ONE_REG, UINT64_MAX) >= 0);
	from->debugregs.db[2] = 3;
	from->ssp = 0x1000;
	CHECK_EQ(save(), 0);
	CHECK_EQ(vcpu_arch_load(arch, to->fd, (struct vcpu_load){.fresh = true}, &timer, saved.data, saved.len, &err), 0);
	CHECK(to->debugregs.db[2] == 3 && to->ssp == 0x1000);
}

/* One that counts has been started by KVM, and is stopped as in a vCPU that ran. */
static void a_timer_waits_until_the_guest_runs(void)
{
	static const struct {
		uint32_t lvt, initial;
		bool stopped;
	} timers[] = {{0, 0, true}, {0, 5, false}, {1 << 17, 0, true}, {1 << 17, 9, false}, {2 << 17, 0, true}, {2 << 17, 7, true}};

	begin(true);
	for (size_t i = 0; i < ARRAY_SIZE(timers); i++) {
		put_le32((uint8_t *)from->lapic.regs + 0x320, timers[i].lvt);
		put_le32((uint8_t *)from->lapic.regs + 0x380, timers[i].initial);
		CHECK_EQ(save(), 0);
		CHECK_EQ(load(false), 0);
		CHECK_EQ(timer.stopped, timers[i].stopped);
		CHECK_EQ(timer.deadline, timers[i].stopped ? 777 : 0);
	}
}

static void what_virtualization_can_do_is_loaded_before_it_is_used(void)
{
	int msrs, nested;
	unsigned int at;

	begin(true);
	virtualize(from, sizeof(struct kvm_nested_state) + KVM_STATE_NESTED_VMX_VMCS_SIZE);
	CHECK_EQ(save(), 0);
	at = fake_kvm.call_count;
	CHECK_EQ(load(false), 0);
	CHECK(virtualizes(to));
	CHECK_EQ(*fake_kvm_msr(to, VMX_BASIC), *fake_kvm_msr(from, VMX_BASIC));
	CHECK_EQ(*fake_kvm_msr(to, VMX_PROCBASED), *fake_kvm_msr(from, VMX_PROCBASED));
	CHECK_EQ(*fake_kvm_msr(to, LSTAR), *fake_kvm_msr(from, LSTAR));
	msrs = fake_kvm_find(at, KVM_SET_MSRS, VMX_PROCBASED);
	nested = fake_kvm_find(at, KVM_SET_NESTED_STATE, UINT64_MAX);
	CHECK(msrs >= 0 && msrs < nested);
	/* the mode is set before it, the registers of the nested guest after it */
	CHECK(fake_kvm_find(at, KVM_SET_SREGS2, UINT64_MAX) < nested);
	CHECK(fake_kvm_find(at, KVM_SET_REGS, UINT64_MAX) > nested);
}

/* Both ways: the guest begins to virtualize after the trial, and it ends. */
static void a_trial_covers_nested_state_and_is_replaced(void)
{
	for (int intel = 0; intel < 2; intel++) {
		begin(intel);
		virtualize(from, sizeof(struct kvm_nested_state) + 4096);
		CHECK_EQ(save(), 0);
		CHECK_EQ(load(true), 0);
		CHECK(virtualizes(to));
		CHECK_EQ(load(true), 0);
		CHECK_EQ(load(false), 0);
		CHECK(virtualizes(to));

		CHECK_EQ(load(true), 0);
		memcpy(from->nested, fake_kvm_vcpu(0)->nested, sizeof(from->nested));
		((struct kvm_nested_state *)from->nested)->size = sizeof(struct kvm_nested_state);
		((struct kvm_nested_state *)from->nested)->flags = intel ? 0 : KVM_STATE_NESTED_GIF_SET;
		((struct kvm_nested_state *)from->nested)->hdr.vmx.vmxon_pa = UINT64_MAX;
		from->sregs.efer = 0;
		move();
		CHECK(!virtualizes(to));
		CHECK_EQ(*fake_kvm_msr(to, VMX_BASIC), *fake_kvm_msr(from, VMX_BASIC));
	}
}

/* Its own nested guest's page in guest memory would be compared. */
static void a_trial_needs_no_memory(void)
{
	begin(true);
	virtualize(from, sizeof(struct kvm_nested_state) + 2 * KVM_STATE_NESTED_VMX_VMCS_SIZE - 1024);
	((struct kvm_nested_state *)from->nested)->size = sizeof(from->nested);
	CHECK_EQ(save(), 0);
	CHECK_EQ(load(true), 0);
	CHECK(!virtualizes(to));
	CHECK_EQ(load(false), 0);
	CHECK(virtualizes(to));
}

static void a_trial_leaves_guest_memory_alone(void)
{
	begin(false);
	CHECK_EQ(save(), 0);
	CHECK_EQ(load(true), 0);
	CHECK_EQ(*fake_kvm_msr(to, WALL_CLOCK), 0);
	CHECK_EQ(*fake_kvm_msr(to, SYSTEM_TIME), 0);
	CHECK_EQ(*fake_kvm_msr(to, LSTAR), *fake_kvm_msr(from, LSTAR));
	CHECK_EQ(load(false), 0);
	CHECK(*fake_kvm_msr(to, WALL_CLOCK) && *fake_kvm_msr(to, SYSTEM_TIME));
}

static void a_shadow_stack_arrives(void)
{
	begin(false);
	fake_kvm.shadow_stacks = true;
	from->ssp = 0x7f0000001000;
	move();
	CHECK_EQ(to->ssp, from->ssp);
	/* a trial's is replaced, also by none */
	from->ssp = 0;
	move();
	CHECK_EQ(to->ssp, 0);
	/* a guest's CPU without them */
	fake_kvm.shadow_stacks = false;
	move();
}

static void a_shadow_stack_needs_a_kvm_that_knows_it(void)
{
	begin(false);
	fake_kvm.shadow_stacks = true;
	from->ssp = 0x7f0000001000;
	CHECK_EQ(save(), 0);
	vcpu_arch_destroy(take_ptr(arch));
	fake_kvm.caps[KVM_CAP_ONE_REG] = 0;
	CHECK_EQ(vcpu_arch_create(&kvm, &arch, &err), 0);
	CHECK_EQ(load(false), -ENOTSUP);
	CHECK(strstr(err.text, "shadow stack"));
}

static void an_older_kvm_is_used_as_well(void)
{
	begin(false);
	vcpu_arch_destroy(take_ptr(arch));
	fake_kvm.caps[KVM_CAP_SREGS2] = fake_kvm.caps[KVM_CAP_XCRS] = fake_kvm.caps[KVM_CAP_NESTED_STATE] = 0;
	CHECK_EQ(vcpu_arch_create(&kvm, &arch, &err), 0);
	move();
	CHECK_EQ(to->sregs.cr3, 0x5678);
	CHECK_EQ(to->xcrs.xcrs[0].value, 0);
}

/* An MSR that cannot be read is no MSR; one that cannot be set must be zero. */
static void every_call_may_fail(void)
{
	begin(true);
	virtualize(from, sizeof(struct kvm_nested_state) + 4096);
	fake_kvm.shadow_stacks = true;
	for (unsigned int n = 1; n < 100; n++) {
		int code;

		err.text[0] = 0;
		fake_kvm_fail(n, EIO);
		code = save() ?: load(true) ?: load(false);
		if (!fake_kvm.failed) {
			CHECK_EQ(code, 0);
			CHECK(n > 30);
			return;
		}
		if (code || fake_kvm.failed != KVM_GET_MSRS)
			CHECK(code == -EIO && err.text[0]);
		fake_kvm_fail(0, 0);
	}
	CHECK(false);
}

/* The value of a field of the saved record, the n-th of that name. */
static uint8_t *field(const char *name, unsigned int n)
{
	uint8_t *at = saved.data;

	for (;; at++, n--) {
		at = memmem(at, saved.len - (size_t)(at - saved.data), name, strlen(name));
		CHECK(at);
		if (!n)
			return at + strlen(name) + 1 + 4;
	}
}

/* Neither what a peer sends nor what a newer KVM returns. */
static void what_nobody_knows_is_refused(void)
{
	static const struct {
		const char *name;
		unsigned int n, at;
		uint8_t value;
	} unknown[] = {
		{"mp_state", 0, 0, 11}, {"mp_state", 0, 0, 5}, {"rflags", 0, 0, 0x20}, {"rflags", 0, 4, 1}, {"type", 0, 0, 16},
		{"dpl", 3, 0, 4}, {"present", 7, 0, 2}, {"unusable", 1, 0, 3}, {"\5flags", 0, 0, 2}, {"\5flags", 0, 7, 1},
		{"\5flags", 1, 0, 0x40}, {"\5flags", 1, 3, 0x80}, {"exception_injected", 0, 0, 2}, {"nmi_masked", 0, 0, 2},
		{"interrupt_shadow", 0, 0, 4}, {"smm_inside_nmi", 0, 0, 2}, {"triple_fault", 0, 0, 2},
		{"xsave", 0, 512 + 8, 1}, {"xsave", 0, 512 + 63, 1}, {"\6format", 0, 0, 2}, {"\5flags", 2, 0, 0x10},
		{"smm_flags", 0, 0, 4}, {"vmx_flags", 0, 0, 2},
	};

	begin(true);
	virtualize(from, sizeof(struct kvm_nested_state) + 4096);
	CHECK_EQ(save(), 0);
	CHECK_EQ(load(false), 0);
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		uint8_t *value = field(unknown[i].name, unknown[i].n) + unknown[i].at, good = *value;

		*value = unknown[i].value;
		if (load(false) != -EBADMSG)
			printf("# %s: %s\n", unknown[i].name, err.text);
		CHECK_EQ(load(false), -EBADMSG);
		*value = good;
	}
	CHECK_EQ(load(false), 0);
	from->sregs.flags = 2;
	CHECK_EQ(save(), -EBADMSG);
	from->sregs.flags = 0;
	from->debugregs.flags = 1;
	CHECK_EQ(save(), -EBADMSG);
}

static void any_byte_may_be_another(void)
{
	begin(true);
	virtualize(from, sizeof(struct kvm_nested_state) + 4096);
	CHECK_EQ(save(), 0);
	for (size_t at = 0; at < saved.len; at += at < 2048 ? 1 : 13) {
		saved.data[at] ^= 0xff;
		CHECK(load(false) == 0 || err.text[0]);
		saved.data[at] ^= 0xff;
	}
}

/* Its area may be larger than this KVM's, as long as nothing is in the part beyond. */
static void a_larger_extended_state_is_loaded_if_it_fits(void)
{
	begin(false);
	vcpu_arch_destroy(take_ptr(arch));
	fake_kvm.caps[KVM_CAP_XSAVE2] = sizeof(from->xsave);
	CHECK_EQ(vcpu_arch_create(&kvm, &arch, &err), 0);
	CHECK_EQ(save(), 0);
	vcpu_arch_destroy(take_ptr(arch));
	fake_kvm.caps[KVM_CAP_XSAVE2] = 0;
	CHECK_EQ(vcpu_arch_create(&kvm, &arch, &err), 0);
	CHECK_EQ(load(false), 0);
	CHECK(memcmp(&to->xsave, &from->xsave, 4096) == 0);
	field("xsave", 0)[4096 + 100] = 1;
	CHECK_EQ(load(false), -ENOTSUP);
}

static void nonsense_is_refused(void)
{
	begin(true);
	virtualize(from, sizeof(struct kvm_nested_state) + 4096);
	CHECK_EQ(save(), 0);
	for (size_t len = 0; len < saved.len; len += 97)
		CHECK(vcpu_arch_load(arch, to->fd, (struct vcpu_load){0}, &timer, saved.data, len, &err) < 0);
	fake_kvm.msr_count--;
	vcpu_arch_destroy(take_ptr(arch));
	CHECK_EQ(vcpu_arch_create(&kvm, &arch, &err), 0);
	CHECK_EQ(load(false), -ENOTSUP);
	CHECK(strstr(err.text, "no MSR 0x3a"));
	end();
}

TEST_MAIN(TEST(everything_arrives), TEST(little_is_set_in_a_fresh_one), TEST(a_timer_waits_until_the_guest_runs), TEST(what_virtualization_can_do_is_loaded_before_it_is_used),
	  TEST(a_trial_covers_nested_state_and_is_replaced), TEST(a_trial_needs_no_memory),
	  TEST(a_trial_leaves_guest_memory_alone), TEST(a_shadow_stack_arrives),
	  TEST(a_shadow_stack_needs_a_kvm_that_knows_it), TEST(an_older_kvm_is_used_as_well), TEST(every_call_may_fail),
	  TEST(what_nobody_knows_is_refused), TEST(any_byte_may_be_another),
	  TEST(a_larger_extended_state_is_loaded_if_it_fits), TEST(nonsense_is_refused))
