/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM offers a guest and what of it the guest gets. All that is not named here is kept: it runs in the processor, or
 * spares exits (kvmclock, steal time, end of interrupt, kicks and flushes of other vCPUs, asynchronous page faults). Hidden
 * is what needs much code of the host's kernel and is of use to few guests. Hiding is more than not telling: KVM refuses
 * the instructions and MSRs of a feature that CPUID does not show (vmx, svm, sgx, pt, lbr), or is told by a capability of
 * the VM (performance counters, paravirtual features).
 *
 * Never asked for, so that no guest gets them: Hyper-V's interface (KVM_GET_SUPPORTED_HV_CPUID, and its leaves in CPUID,
 * without which KVM refuses its MSRs), Xen's (KVM_XEN_HVM_CONFIG), hypercalls and MSRs that user space answers
 * (KVM_CAP_EXIT_HYPERCALL, KVM_CAP_X86_USER_SPACE_MSR), a guest's MONITOR, HLT or PAUSE without an exit
 * (KVM_CAP_X86_DISABLE_EXITS), encrypted guests, system management mode (KVM_SMI).
 *
 * The choices travel with a machine in its configuration and in its CPU (cpuid_offer_x86.c), so that a guest that was moved
 * or restored keeps what it saw. Called by cpuid_x86.c and by the machine.
 */
#include "vmm/kvm/cpuid_hide_x86.h"

#include <sys/ioctl.h>

enum cpuid_hide_when { ALWAYS, UNLESS_NESTED, UNLESS_PMU };

/* Bits of a register, or all registers of a leaf. */
static const struct cpuid_hide_row {
	uint32_t leaf, index;
	enum cpuid_reg reg;
	uint32_t bits; /* 0: the leaf, with all its indexes */
	enum cpuid_hide_when when;
} rows[] = {
	/* Guests as hypervisors: the largest part of KVM that a guest reaches, and the one with most of its faults. */
	{1, 0, ECX, 1u << 5, UNLESS_NESTED},           /* vmx */
	{0x80000001, 0, ECX, 1u << 2, UNLESS_NESTED},  /* svm */
	{0x80000001, 0, ECX, 1u << 12, UNLESS_NESTED}, /* skinit, which starts a hypervisor */
	{0x8000000a, 0, EAX, 0, UNLESS_NESTED},
	{0x40000001, 0, EAX, 1u << 10, UNLESS_NESTED}, /* asynchronous page faults as exits of a nested guest */
	/* Performance counters: they count events of the host's processor, which tells one guest about others that share
	 * it, and each entry of the guest would load them. */
	{1, 0, ECX, 1u << 2 | 1u << 15, UNLESS_PMU}, /* dtes64, pdcm */
	{1, 0, EDX, 1u << 21, UNLESS_PMU},           /* ds */
	{7, 0, EDX, 1u << 19, UNLESS_PMU},           /* arch_lbr */
	{7, 1, EAX, 1u << 8, UNLESS_PMU},            /* arch_perfmon_ext */
	{0xa, 0, EAX, 0, UNLESS_PMU},
	{0xd, 1, ECX, 1u << 15, UNLESS_PMU},         /* the extended state of arch_lbr */
	{0x1c, 0, EAX, 0, UNLESS_PMU},
	{0x23, 0, EAX, 0, UNLESS_PMU},
	{0x80000001, 0, ECX, 1u << 10 | 1u << 23 | 1u << 24 | 1u << 28, UNLESS_PMU}, /* ibs, perfctr_core, _nb, _llc */
	{0x8000001b, 0, EAX, 0, UNLESS_PMU},         /* ibs */
	{0x80000022, 0, EAX, 0, UNLESS_PMU},         /* perfmon_v2 */
	/* Processor traces: KVM gives them where it was loaded for that (pt_mode=1). A trace is written without exits, and
	 * nothing bounds it. */
	{7, 0, EBX, 1u << 25, ALWAYS},
	{0xd, 1, ECX, 1u << 8, ALWAYS},
	{0x14, 0, EAX, 0, ALWAYS},
	/* Enclaves: the machine gets no memory for them, so that they could only be tried in vain. */
	{7, 0, EBX, 1u << 2, ALWAYS},
	{7, 0, ECX, 1u << 30, ALWAYS}, /* sgx_lc */
	{0x12, 0, EAX, 0, ALWAYS},
	/* Encrypted guests: they are started in another way. */
	{0x8000001f, 0, EAX, 0, ALWAYS},
};

/* KVM's deviations from processors (KVM_CAP_DISABLE_QUIRKS2) that a machine without firmware does not need. The others
 * stay: LINT0 and the caches are enabled as firmware would leave them (0x1, 0x2), MWAIT goes with IA32_MISC_ENABLE (0x10),
 * images for both vendors use one of the hypercall instructions (0x20), removing a slot drops all mappings, which host
 * devices have been tested with (0x80), new vCPUs have the processor's feature MSRs, which are told to the target of a
 * migration (0x100), memory types are the host's (0x200). */
#define QUIRKS_DISABLED \
	((uint64_t)(KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_OUT_7E_INC_RIP | 0x40 /* MWAIT is never invalid */))

static bool cpuid_hide_wanted(enum cpuid_hide_when when, const struct cpu_config *config)
{
	return when == ALWAYS || (when == UNLESS_NESTED && !config->nested) || (when == UNLESS_PMU && !config->pmu);
}

static void cpuid_hide_row(struct guest_cpu *model, const struct cpuid_hide_row *row)
{
	for (uint32_t i = 0; i < model->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *entry = &model->cpuid->entries[i];

		if (entry->function != row->leaf)
			continue;
		if (!row->bits)
			entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
		else if (entry->index == row->index)
			*cpuid_reg(entry, row->reg) &= ~row->bits;
	}
}

static bool cpuid_hide_shows(const struct guest_cpu *model, uint32_t leaf, enum cpuid_reg reg, uint32_t bits)
{
	struct kvm_cpuid_entry2 *entry = cpuid_find(model, leaf, 0);

	return entry && *cpuid_reg(entry, reg) & bits;
}

bool cpuid_hide_shows_nested(const struct guest_cpu *model)
{
	return cpuid_hide_shows(model, 1, ECX, 1u << 5) || cpuid_hide_shows(model, 0x80000001, ECX, 1u << 2);
}

/* The version of Intel's counters, or AMD's core counters. */
bool cpuid_hide_shows_pmu(const struct guest_cpu *model)
{
	return cpuid_hide_shows(model, 0xa, EAX, 0xff) || cpuid_hide_shows(model, 0x80000001, ECX, 1u << 23);
}

int cpuid_hide(struct kvm *kvm, struct guest_cpu *model, const struct cpu_config *config, struct err *err)
{
	if (config->nested && !cpuid_hide_shows_nested(model))
		return err_set(err, -ENOTSUP, "--cpu host,nested=on: this host's KVM does not offer it; load kvm_intel or kvm_amd "
					      "with nested=1, or leave nested=on out");
	if (config->pmu && !cpuid_hide_shows_pmu(model) && !kvm_check_host(kvm, KVM_CAP_PMU_CAPABILITY))
		return err_set(err, -ENOTSUP, "--cpu host,pmu=on: this host's KVM does not offer performance counters; load kvm "
					      "with enable_pmu=1, or leave pmu=on out");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (cpuid_hide_wanted(rows[i].when, config))
			cpuid_hide_row(model, &rows[i]);
	model->strict = true;
	return 0;
}

static int cpuid_hide_enable(int fd, uint32_t cap, uint64_t arg, const char *name, struct err *err)
{
	struct kvm_enable_cap enable = {.cap = cap, .args[0] = arg};

	return ioctl(fd, KVM_ENABLE_CAP, &enable) < 0 ? err_sys(err, -errno, "%s", name) : 0;
}

#define ENABLE(fd, cap, arg) cpuid_hide_enable(fd, cap, arg, #cap, err)

int guest_cpu_bind(struct kvm *kvm, struct guest_cpu *model, const struct cpu_config *config, struct err *err)
{
	uint64_t quirks = model->strict ? QUIRKS_DISABLED & (uint64_t)kvm_check(kvm, KVM_CAP_DISABLE_QUIRKS2) : 0;
	int code = 0;

	model->enforce = model->strict && kvm_check(kvm, KVM_CAP_ENFORCE_PV_FEATURE_CPUID);
	/* Not for a guest of an older program: AMD's oldest counters, which CPUID does not show, may be at work. */
	if (model->strict && !config->pmu && kvm_check(kvm, KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE)
		code = ENABLE(kvm->vm_fd, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	if (quirks && !code)
		code = ENABLE(kvm->vm_fd, KVM_CAP_DISABLE_QUIRKS2, quirks);
	/* A guest that keeps the processor from taking any interrupt (microcode that does not end) leaves by itself. */
	if (!code && kvm_check(kvm, KVM_CAP_X86_NOTIFY_VMEXIT))
		code = ENABLE(kvm->vm_fd, KVM_CAP_X86_NOTIFY_VMEXIT, KVM_X86_NOTIFY_VMEXIT_ENABLED);
	return code;
}

int cpuid_hide_vcpu(const struct guest_cpu *model, int vcpu_fd, struct err *err)
{
	return model->enforce ? ENABLE(vcpu_fd, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1) : 0;
}
