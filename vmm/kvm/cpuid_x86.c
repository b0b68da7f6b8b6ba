/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's CPU: what KVM supports of the host's CPU, with the machine's topology (one socket, one core for each
 * vCPU), without what cpuid_hide_x86.c hides and without the masked features. Masking a feature also masks those that
 * depend on it, in all leaves. Follows the Intel SDM volume 2 (CPUID), the AMD APM volume 3 appendix E, and the KVM leaves
 * of Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "vmm/kvm/cpuid_x86.h"
#include "vmm/config/nearest.h"
#include "vmm/kvm/cpuid_hide_x86.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <stdio.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rates that KVM gives every guest: its local APICs count nanoseconds. */
#define APIC_KHZ 1000000u

#define LEAF_TSC 0x15u
#define LEAF_RATES 0x16u
#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_HYPERVISOR_RATES 0x40000010u

#define XSAVE_TILE_DATA 18u

const struct cpuid_feature cpuid_features[] = {
	{"sse3", 1, 0, ECX, 0}, {"pni", 1, 0, ECX, 0}, {"pclmulqdq", 1, 0, ECX, 1}, {"vmx", 1, 0, ECX, 5},
	{"ssse3", 1, 0, ECX, 9, "sse3"}, {"fma", 1, 0, ECX, 12, "avx"}, {"cx16", 1, 0, ECX, 13},
	{"pcid", 1, 0, ECX, 17}, {"sse4_1", 1, 0, ECX, 19, "ssse3"}, {"sse4_2", 1, 0, ECX, 20, "sse4_1"},
	{"x2apic", 1, 0, ECX, 21}, {"movbe", 1, 0, ECX, 22}, {"popcnt", 1, 0, ECX, 23},
	{"tsc_deadline_timer", 1, 0, ECX, 24}, {"aes", 1, 0, ECX, 25}, {"xsave", 1, 0, ECX, 26},
	{"avx", 1, 0, ECX, 28, "xsave"}, {"f16c", 1, 0, ECX, 29, "avx"}, {"rdrand", 1, 0, ECX, 30},
	{"fsgsbase", 7, 0, EBX, 0}, {"tsc_adjust", 7, 0, EBX, 1}, {"bmi1", 7, 0, EBX, 3}, {"avx2", 7, 0, EBX, 5, "avx"},
	{"smep", 7, 0, EBX, 7}, {"bmi2", 7, 0, EBX, 8}, {"erms", 7, 0, EBX, 9}, {"invpcid", 7, 0, EBX, 10, "pcid"},
	{"rtm", 7, 0, EBX, 11}, {"hle", 7, 0, EBX, 4, "rtm"}, {"mpx", 7, 0, EBX, 14, "xsave"},
	{"avx512f", 7, 0, EBX, 16, "avx2"}, {"avx512dq", 7, 0, EBX, 17, "avx512f"}, {"rdseed", 7, 0, EBX, 18},
	{"adx", 7, 0, EBX, 19}, {"smap", 7, 0, EBX, 20}, {"avx512ifma", 7, 0, EBX, 21, "avx512f"},
	{"clflushopt", 7, 0, EBX, 23}, {"clwb", 7, 0, EBX, 24}, {"avx512pf", 7, 0, EBX, 26, "avx512f"},
	{"avx512er", 7, 0, EBX, 27, "avx512f"}, {"avx512cd", 7, 0, EBX, 28, "avx512f"}, {"sha_ni", 7, 0, EBX, 29, "sse3"},
	{"avx512bw", 7, 0, EBX, 30, "avx512f"}, {"avx512vl", 7, 0, EBX, 31, "avx512f"},
	{"avx512vbmi", 7, 0, ECX, 1, "avx512bw"}, {"umip", 7, 0, ECX, 2}, {"pku", 7, 0, ECX, 3, "xsave"},
	{"avx512_vbmi2", 7, 0, ECX, 6, "avx512bw"}, {"gfni", 7, 0, ECX, 8, "sse3"}, {"vaes", 7, 0, ECX, 9, "avx"},
	{"vpclmulqdq", 7, 0, ECX, 10, "avx"}, {"avx512_vnni", 7, 0, ECX, 11, "avx512f"},
	{"avx512_bitalg", 7, 0, ECX, 12, "avx512bw"}, {"avx512_vpopcntdq", 7, 0, ECX, 14, "avx512f"},
	{"shstk", 7, 0, ECX, 7}, {"ibt", 7, 0, EDX, 20}, {"la57", 7, 0, ECX, 16}, {"rdpid", 7, 0, ECX, 22}, {"avx512_4vnniw", 7, 0, EDX, 2, "avx512f"},
	{"avx512_4fmaps", 7, 0, EDX, 3, "avx512f"}, {"fsrm", 7, 0, EDX, 4},
	{"avx512_vp2intersect", 7, 0, EDX, 8, "avx512f"}, {"serialize", 7, 0, EDX, 14},
	{"amx_tile", 7, 0, EDX, 24, "xsave"}, {"amx_bf16", 7, 0, EDX, 22, "amx_tile"},
	{"avx512_fp16", 7, 0, EDX, 23, "avx512bw"}, {"amx_int8", 7, 0, EDX, 25, "amx_tile"},
	{"spec_ctrl", 7, 0, EDX, 26}, {"stibp", 7, 0, EDX, 27}, {"arch_capabilities", 7, 0, EDX, 29},
	{"ssbd", 7, 0, EDX, 31}, {"avx_vnni", 7, 1, EAX, 4, "avx2"}, {"avx512_bf16", 7, 1, EAX, 5, "avx512f"},
	{"amx_fp16", 7, 1, EAX, 21, "amx_tile"}, {"amx_complex", 7, 1, EDX, 8, "amx_tile"},
	{"avx_ifma", 7, 1, EAX, 23, "avx2"}, {"xsaveopt", 0xd, 1, EAX, 0, "xsave"}, {"xsavec", 0xd, 1, EAX, 1, "xsave"},
	{"xgetbv1", 0xd, 1, EAX, 2, "xsave"}, {"xsaves", 0xd, 1, EAX, 3, "xsave"},
	{"svm", 0x80000001, 0, ECX, 2}, {"abm", 0x80000001, 0, ECX, 5}, {"sse4a", 0x80000001, 0, ECX, 6, "sse3"},
	{"3dnowprefetch", 0x80000001, 0, ECX, 8}, {"xop", 0x80000001, 0, ECX, 11, "avx"},
	{"fma4", 0x80000001, 0, ECX, 16, "avx"}, {"tbm", 0x80000001, 0, ECX, 21}, {"nx", 0x80000001, 0, EDX, 20},
	{"pdpe1gb", 0x80000001, 0, EDX, 26}, {"rdtscp", 0x80000001, 0, EDX, 27},
	{"constant_tsc", 0x80000007, 0, EDX, 8}, {"clzero", 0x80000008, 0, EBX, 0}, {"ibpb", 0x80000008, 0, EBX, 12},
	{"kvmclock", 0x40000001, 0, EAX, 3}, {"kvmclock", 0x40000001, 0, EAX, 0},
	{"kvmclock_stable", 0x40000001, 0, EAX, 24, "kvmclock"}, {"kvm_pv_eoi", 0x40000001, 0, EAX, 6},
	{"kvm_steal_time", 0x40000001, 0, EAX, 5}, {"kvm_async_pf", 0x40000001, 0, EAX, 4},
	{"kvm_pv_unhalt", 0x40000001, 0, EAX, 7}, {"kvm_pv_tlb_flush", 0x40000001, 0, EAX, 9},
	{"kvm_pv_ipi", 0x40000001, 0, EAX, 11}, {"kvm_poll_control", 0x40000001, 0, EAX, 12},
	{"kvm_pv_sched_yield", 0x40000001, 0, EAX, 13}, {"kvm_async_pf_int", 0x40000001, 0, EAX, 14},
};
const size_t cpuid_feature_count = ARRAY_SIZE(cpuid_features);

/* The entry of a leaf; a new one of zeroes if KVM has none. NULL if the table is full. */
static struct kvm_cpuid_entry2 *cpuid_get(struct guest_cpu *model, uint32_t function, uint32_t index, uint32_t flags)
{
	struct kvm_cpuid_entry2 *entry = cpuid_find(model, function, index);

	if (entry || model->cpuid->nent == CPUID_MAX_ENTRIES)
		return entry;
	entry = &model->cpuid->entries[model->cpuid->nent++];
	*entry = (struct kvm_cpuid_entry2){.function = function, .index = index, .flags = flags};
	return entry;
}

static void cpuid_clear_feature(struct guest_cpu *model, const struct cpuid_feature *feature)
{
	struct kvm_cpuid_entry2 *entry = cpuid_find(model, feature->leaf, feature->index);

	if (entry)
		*cpuid_reg(entry, feature->reg) &= ~(1u << feature->bit);
}

/* Clears all features of that name and those that depend on them. */
static bool cpuid_clear_named(struct guest_cpu *model, const char *name)
{
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(cpuid_features); i++) {
		if (strcasecmp(cpuid_features[i].name, name) != 0)
			continue;
		known = true;
		cpuid_clear_feature(model, &cpuid_features[i]);
		for (size_t j = 0; j < ARRAY_SIZE(cpuid_features); j++)
			if (cpuid_features[j].needs && strcasecmp(cpuid_features[j].needs, name) == 0)
				cpuid_clear_named(model, cpuid_features[j].name);
	}
	/* Two names for one bit. */
	if (strcasecmp(name, "pni") == 0)
		cpuid_clear_named(model, "sse3");
	return known;
}

static int cpuid_unknown_feature(const char *name, struct err *err)
{
	struct nearest near = nearest_begin(name, strlen(name));
	char hint[NEAREST_HINT];

	for (size_t i = 0; i < ARRAY_SIZE(cpuid_features); i++)
		nearest_offer(&near, cpuid_features[i].name);
	return err_set(err, -EINVAL, "--cpu host,-%.60s: unknown feature%s", name,
		       near.best ? nearest_hint("-", near.best, hint) : "; names are those of /proc/cpuinfo");
}

bool cpuid_has_named(const struct guest_cpu *model, const char *name)
{
	bool has = false;

	for (size_t i = 0; i < ARRAY_SIZE(cpuid_features); i++) {
		const struct cpuid_feature *feature = &cpuid_features[i];
		struct kvm_cpuid_entry2 *entry = cpuid_find(model, feature->leaf, feature->index);

		if (entry && strcmp(feature->name, name) == 0)
			has |= *cpuid_reg(entry, feature->reg) >> feature->bit & 1;
	}
	return has;
}

/* Parts of the extended state that belong together, and the features that use them (Intel SDM volume 1, chapter 13). */
static const struct state_parts {
	uint32_t parts; /* bits of XCR0, or of XSS */
	bool supervisor;
	const char *users[2];
} state_parts[] = {
	{1u << 2, false, {"avx"}}, {1u << 3 | 1u << 4, false, {"mpx"}},
	{1u << 5 | 1u << 6 | 1u << 7, false, {"avx512f"}}, {1u << 9, false, {"pku"}},
	{1u << 11 | 1u << 12, true, {"shstk", "ibt"}}, {1u << 17 | 1u << 18, false, {"amx_tile"}},
};

static void cpuid_remove_parts(struct guest_cpu *model, const struct state_parts *group, uint32_t *shown)
{
	*shown &= ~group->parts;
	for (uint32_t parts = group->parts; parts; parts &= parts - 1) {
		struct kvm_cpuid_entry2 *part = cpuid_find(model, 0xd, (uint32_t)__builtin_ctz(parts));

		if (part)
			part->eax = part->ebx = part->ecx = part->edx = 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(group->users) && group->users[i]; i++)
		cpuid_clear_named(model, group->users[i]);
}

/* The leaves that describe AMX's tiles. */
static void cpuid_remove_tile_leaves(struct guest_cpu *model)
{
	for (uint32_t i = 0; i < model->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *entry = &model->cpuid->entries[i];

		if (entry->function == 0x1d || entry->function == 0x1e)
			entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
	}
}

/* Parts go together with their features: those that no feature uses, or the guest would reserve room for them; and
 * features whose parts the host does not give as a whole. */
static void cpuid_fit_xsave(struct guest_cpu *model)
{
	struct kvm_cpuid_entry2 *main_leaf = cpuid_find(model, 0xd, 0), *more = cpuid_find(model, 0xd, 1);
	struct kvm_cpuid_entry2 *basic = cpuid_find(model, 1, 0);
	uint32_t none = 0;

	for (size_t i = 0; i < ARRAY_SIZE(state_parts); i++) {
		const struct state_parts *group = &state_parts[i];
		struct kvm_cpuid_entry2 *leaf = group->supervisor ? more : main_leaf;
		uint32_t *shown = !leaf ? &none : group->supervisor ? &leaf->ecx : &leaf->eax;
		bool used = cpuid_has_named(model, group->users[0]) ||
			    (group->users[1] && cpuid_has_named(model, group->users[1]));

		if (!used || (*shown & group->parts) != group->parts)
			cpuid_remove_parts(model, group, shown);
	}
	if (!cpuid_has_named(model, "amx_tile"))
		cpuid_remove_tile_leaves(model);
	if (main_leaf && basic && !(basic->ecx >> 26 & 1))
		main_leaf->eax = main_leaf->ebx = main_leaf->ecx = main_leaf->edx = 0;
}

static unsigned int cpuid_bits_for(unsigned int count)
{
	unsigned int bits = 0;

	while (1u << bits < count)
		bits++;
	return bits;
}

/* Leaves 0xb and 0x1f: one thread in each core, all cores in one package. */
static void cpuid_set_topology_leaf(struct guest_cpu *model, uint32_t leaf)
{
	const uint32_t flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	struct kvm_cpuid_entry2 *thread = cpuid_get(model, leaf, 0, flags);
	struct kvm_cpuid_entry2 *core = cpuid_get(model, leaf, 1, flags), *end = cpuid_get(model, leaf, 2, flags);

	if (!thread || !core || !end)
		return;
	thread->eax = 0;
	thread->ebx = 1;
	thread->ecx = 1 << 8;
	core->eax = cpuid_bits_for(model->cpus);
	core->ebx = model->cpus;
	core->ecx = 1 | 2 << 8;
	end->eax = end->ebx = 0;
	end->ecx = 2;
}

/* The caches of leaf 4 (Intel) and 0x8000001d (AMD): all cores share the last level, each has the others to itself. */
static void cpuid_set_cache_sharing(struct guest_cpu *model, uint32_t leaf)
{
	for (uint32_t index = 0; index < 8; index++) {
		struct kvm_cpuid_entry2 *entry = cpuid_find(model, leaf, index);
		uint32_t level, sharing, cores = 0;

		if (!entry || !(entry->eax & 0x1f))
			continue;
		level = entry->eax >> 5 & 7;
		sharing = level >= 3 ? (1u << cpuid_bits_for(model->cpus)) - 1 : 0;
		if (leaf == 4)
			cores = MIN((1u << cpuid_bits_for(model->cpus)) - 1, 63u) << 26;
		entry->eax = (entry->eax & 0x3fff) | sharing << 14 | cores;
	}
}

static void cpuid_set_topology(struct guest_cpu *model)
{
	struct kvm_cpuid_entry2 *basic = cpuid_find(model, 1, 0), *sizes = cpuid_find(model, 0x80000008, 0);
	struct kvm_cpuid_entry2 *top = cpuid_find(model, 0, 0), *units = cpuid_find(model, 0x8000001e, 0);

	if (basic) {
		basic->ebx = (basic->ebx & 0xff00) | MIN(1u << cpuid_bits_for(model->cpus), 255u) << 16;
		basic->edx = model->cpus > 1 ? basic->edx | 1u << 28 : basic->edx & ~(1u << 28);
		basic->ecx |= 1u << 31;
	}
	if (sizes)
		sizes->ecx = model->cpus > 1 ? (cpuid_bits_for(model->cpus) << 12) | (model->cpus - 1) : 0;
	if (units)
		units->ebx = units->ecx = 0;
	cpuid_set_cache_sharing(model, 4);
	cpuid_set_cache_sharing(model, 0x8000001d);
	cpuid_set_topology_leaf(model, 0xb);
	if (top && top->eax < 0xb)
		top->eax = 0xb;
	if (top && top->eax >= 0x1f)
		cpuid_set_topology_leaf(model, 0x1f);
}

/* KVM lists the leaves of the processor's name but leaves them empty. In a virtual machine, each CPUID takes 4 us. */
static void cpuid_set_brand(struct guest_cpu *model)
{
	const struct kvm_cpuid_entry2 *extended = cpuid_find(model, 0x80000000, 0);

	if (!extended || extended->eax < 0x80000004)
		return;
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
		struct kvm_cpuid_entry2 *entry = cpuid_get(model, leaf, 0, 0);

		if (entry && !(entry->eax | entry->ebx | entry->ecx | entry->edx))
			__cpuid(leaf, entry->eax, entry->ebx, entry->ecx, entry->edx);
	}
}

/* Features that KVM has for every guest but does not list. */
static void cpuid_add_kvm_features(struct kvm *kvm, struct guest_cpu *model)
{
	struct kvm_cpuid_entry2 *basic = cpuid_find(model, 1, 0);

	if (basic && kvm_check_host(kvm, KVM_CAP_TSC_DEADLINE_TIMER))
		basic->ecx |= 1u << 24;
	if (basic)
		basic->ecx |= 1u << 21; /* x2APIC: the in-kernel local APIC has it */
}

/*
 * A guest without kvmclock finds out the rates here: Linux in Intel's leaves (SDM volume 2, CPUID), which it reads on
 * Intel alone, others in the hypervisor's leaf that VMware has defined. guest_cpu_apply completes them.
 */
static void cpuid_add_rates(struct guest_cpu *model)
{
	struct kvm_cpuid_entry2 *top = cpuid_find(model, 0, 0), *hypervisor = cpuid_find(model, LEAF_HYPERVISOR, 0);
	bool intel = top && top->ebx == 0x756e6547 && top->edx == 0x49656e69 && top->ecx == 0x6c65746e;
	struct kvm_cpuid_entry2 *tsc = intel ? cpuid_get(model, LEAF_TSC, 0, 0) : NULL;
	struct kvm_cpuid_entry2 *rates = intel ? cpuid_get(model, LEAF_RATES, 0, 0) : NULL;
	struct kvm_cpuid_entry2 *both = hypervisor ? cpuid_get(model, LEAF_HYPERVISOR_RATES, 0, 0) : NULL;

	if (tsc && rates) {
		top->eax = MAX(top->eax, LEAF_RATES);
		tsc->eax = APIC_KHZ;
		tsc->ecx = APIC_KHZ * 1000; /* the crystal's Hz; the local APICs count it */
		rates->ecx = 100;
	}
	if (both) {
		hypervisor->eax = MAX(hypervisor->eax, LEAF_HYPERVISOR_RATES);
		both->ebx = APIC_KHZ;
	}
}

static void cpuid_set_tsc_rate(struct kvm_cpuid_entry2 *entry, unsigned int khz)
{
	if (entry->function == LEAF_TSC && entry->eax == APIC_KHZ)
		entry->ebx = khz;
	if (entry->function == LEAF_RATES && entry->ecx == 100)
		entry->eax = entry->ebx = (khz + 500) / 1000;
	if (entry->function == LEAF_HYPERVISOR_RATES)
		entry->eax = khz;
}

/*
 * Linux gives a guest AMX's large state only if the process has asked for it before it creates a vCPU
 * (Documentation/arch/x86/xstate.rst). If that is refused, KVM does not show the state, and cpuid_fit_xsave removes
 * what uses it.
 */
void cpuid_ask_for_tiles(struct kvm *kvm)
{
	uint64_t parts = 0;
	struct kvm_device_attr attr = {.attr = KVM_X86_XCOMP_GUEST_SUPP, .addr = (uintptr_t)&parts};

	if (kvm_check_host(kvm, KVM_CAP_SYS_ATTRIBUTES) && ioctl(kvm->fd, KVM_GET_DEVICE_ATTR, &attr) == 0 &&
	    parts >> XSAVE_TILE_DATA & 1)
		syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, XSAVE_TILE_DATA);
}

static bool cpuid_is_masked(char *const *masked, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcasecmp(masked[i], name) == 0)
			return true;
	return false;
}

static int cpuid_fetch(struct kvm *kvm, struct guest_cpu *model, struct err *err)
{
	int ret;

	model->cpuid->nent = CPUID_MAX_ENTRIES;
	ret = ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, model->cpuid);
	if (ret < 0)
		model->cpuid->nent = 0;
	return ret < 0 ? err_sys(err, -errno, "KVM_GET_SUPPORTED_CPUID") : 0;
}

/* IA32_ARCH_CAPABILITIES, as KVM gives it to every vCPU; 0 if KVM does not have it. */
static void cpuid_read_capabilities(struct kvm *kvm, struct guest_cpu *model)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = {.head.nmsrs = 1, .entry.index = 0x10a};

	model->has_capabilities = true;
	model->capabilities = ioctl(kvm->fd, KVM_GET_MSRS, &msr) == 1 ? msr.entry.data : 0;
}

/* Everything but the masked features; what KVM shows but cannot save is hidden. */
static int cpuid_mask(struct kvm *kvm, struct guest_cpu *model, char *const *masked, size_t count, struct err *err)
{
	for (size_t i = 0; i < count; i++)
		if (!cpuid_clear_named(model, masked[i]))
			return cpuid_unknown_feature(masked[i], err);
	if (!kvm_check_host(kvm, KVM_CAP_ONE_REG)) /* the shadow stack pointer */
		cpuid_clear_named(model, "shstk");
	return 0;
}

/*
 * KVM answers zeroes for a leaf that the table does not have, if it is none above the last one of its range. More than half
 * of what KVM returns are such leaves; each costs time when the CPU is set, and in an offer. Leaves of features stay,
 * because a KVM may add to them, and those that guest_cpu_apply completes.
 */
static bool cpuid_is_needless(const struct guest_cpu *model, const struct kvm_cpuid_entry2 *entry)
{
	static const uint32_t needed[] = {1, 7, 0xb, 0xd, 0x1f, 0x80000001, 0x80000007, 0x80000008, 0x8000001e, 0x80000021};
	const struct kvm_cpuid_entry2 *range = cpuid_find(model, entry->function & 0x80000000, 0);

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (entry->function == needed[i])
			return false;
	return range && entry->function <= range->eax && !(entry->eax | entry->ebx | entry->ecx | entry->edx);
}

static void cpuid_drop_needless(struct guest_cpu *model)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < model->cpuid->nent; i++)
		if (!cpuid_is_needless(model, &model->cpuid->entries[i]))
			model->cpuid->entries[kept++] = model->cpuid->entries[i];
	model->cpuid->nent = kept;
}

int guest_cpu_create(struct kvm *kvm, unsigned int cpus, const struct cpu_config *config, struct guest_cpu **ret,
		     struct err *err)
{
	char *const *masked = config ? config->masked : NULL;
	size_t masked_count = config ? config->masked_count : 0;
	struct guest_cpu *model = cpuid_alloc(cpus);
	struct kvm_cpuid_entry2 *sizes;
	int code;

	if (!model)
		return err_sys(err, -ENOMEM, "CPU model");
	if (!cpuid_is_masked(masked, masked_count, "amx_tile"))
		cpuid_ask_for_tiles(kvm);
	code = cpuid_fetch(kvm, model, err);
	cpuid_add_kvm_features(kvm, model);
	code = code ?: cpuid_mask(kvm, model, masked, masked_count, err);
	code = code || !config ? code : cpuid_hide(kvm, model, config, err);
	if (code < 0) {
		guest_cpu_destroy(model);
		return code;
	}
	cpuid_read_capabilities(kvm, model);
	cpuid_fit_xsave(model);
	cpuid_set_topology(model);
	cpuid_set_brand(model);
	cpuid_add_rates(model);
	cpuid_drop_needless(model);
	sizes = cpuid_find(model, 0x80000008, 0);
	model->phys_bits = sizes ? sizes->eax & 0xff : 36;
	*ret = model;
	return 0;
}

uint32_t guest_cpu_apic_id(const struct guest_cpu *model, unsigned int index)
{
	return index;
}

unsigned int guest_cpu_phys_bits(const struct guest_cpu *model)
{
	return model->phys_bits;
}

bool guest_cpu_stable_tsc(const struct guest_cpu *model)
{
	const struct kvm_cpuid_entry2 *power = cpuid_find(model, 0x80000007, 0);

	return power && power->edx >> 8 & 1;
}

bool guest_cpu_has_kvmclock(const struct guest_cpu *model)
{
	return cpuid_has_named(model, "kvmclock");
}

int guest_cpu_apply(const struct guest_cpu *model, int vcpu_fd, unsigned int index, unsigned int tsc_khz,
		    struct err *err)
{
	uint32_t id = guest_cpu_apic_id(model, index);
	int code = cpuid_hide_vcpu(model, vcpu_fd, err);

	if (code < 0)
		return code;
	for (uint32_t i = 0; i < model->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *entry = &model->cpuid->entries[i];

		if (entry->function == 1)
			entry->ebx = (entry->ebx & 0x00ffffff) | id << 24;
		else if (entry->function == 0xb || entry->function == 0x1f)
			entry->edx = id;
		else if (entry->function == 0x8000001e) {
			entry->eax = id;
			entry->ebx = id & 0xff;
		}
		cpuid_set_tsc_rate(entry, tsc_khz);
	}
	return ioctl(vcpu_fd, KVM_SET_CPUID2, model->cpuid) < 0 ? err_sys(err, -errno, "KVM_SET_CPUID2") : 0;
}
