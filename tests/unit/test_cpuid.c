/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm/kvm/cpuid_x86.c and cpuid_hide_x86.c: masks reach what is built on a feature, topology fits the number of CPUs, and
 * what a guest seldom needs is hidden.
 */
#include "tests/unit/cpuid_rig.h"

static void masks_reach_what_is_built_on_a_feature(void)
{
	struct guest_cpu *model = everything(1);

	CHECK(cpuid_clear_named(model, "AVX"));
	CHECK(!has(model, "avx") && !has(model, "fma") && !has(model, "avx2") && !has(model, "avx512f"));
	CHECK(!has(model, "avx512vl") && !has(model, "avx512_bf16") && !has(model, "vaes"));
	CHECK(has(model, "xsave") && has(model, "sse4_2") && has(model, "pku"));
	CHECK(cpuid_clear_named(model, "xsave"));
	CHECK(!has(model, "pku") && !has(model, "xsaveopt") && !has(model, "amx_int8"));
	CHECK(cpuid_clear_named(model, "pni"));
	CHECK(!has(model, "sse3") && !has(model, "sse4_2") && !has(model, "sha_ni"));
	CHECK(!cpuid_clear_named(model, "nonsense"));
	guest_cpu_destroy(model);
}

static void extended_state_follows_its_users(void)
{
	struct guest_cpu *model = everything(1);

	cpuid_fit_xsave(model);
	CHECK_EQ(cpuid_find(model, 0xd, 2)->eax, ~0u);
	CHECK(cpuid_clear_named(model, "avx"));
	cpuid_fit_xsave(model);
	CHECK_EQ(cpuid_find(model, 0xd, 2)->eax, 0);
	CHECK_EQ(cpuid_find(model, 0xd, 5)->ebx, 0);
	CHECK_EQ(cpuid_find(model, 0xd, 0)->eax & 0xe4, 0);
	CHECK_EQ(cpuid_find(model, 0xd, 0)->eax >> 9 & 1, 1);
	CHECK(cpuid_clear_named(model, "xsave"));
	cpuid_fit_xsave(model);
	CHECK_EQ(cpuid_find(model, 0xd, 0)->eax, 0);
	guest_cpu_destroy(model);
}

/* A mask or a host that gives half of a group gives nothing of it, and no feature that needs it. */
static void parts_of_the_state_stay_together(void)
{
	static const struct {
		uint32_t part, others;
		const char *gone;
	} cases[] = {
		{17, 1u << 18, "amx_tile"}, {18, 1u << 17, "amx_complex"}, {18, 1u << 17, "amx_fp16"}, {3, 1u << 4, "mpx"},
		{6, 1u << 5 | 1u << 7, "avx512vl"}, {2, 0, "avx2"}, {9, 0, "pku"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct guest_cpu *model = everything(1);

		*cpuid_get(model, 0x1d, 1, 0) = (struct kvm_cpuid_entry2){.function = 0x1d, .index = 1, .eax = 1};
		cpuid_find(model, 0xd, 0)->eax = ~(1u << cases[i].part);
		cpuid_fit_xsave(model);
		CHECK_EQ(cpuid_find(model, 0xd, 0)->eax & cases[i].others, 0);
		CHECK(!has(model, cases[i].gone));
		CHECK_EQ(cpuid_find(model, 0x1d, 1)->eax, cases[i].part < 17);
		guest_cpu_destroy(model);
	}
}

static void shadow_stacks_and_branch_tracking_can_be_masked(void)
{
	struct guest_cpu *model = everything(1);
	uint32_t both = 1u << 11 | 1u << 12;

	CHECK(cpuid_clear_named(model, "shstk"));
	cpuid_fit_xsave(model);
	CHECK(!has(model, "shstk") && has(model, "ibt"));
	CHECK_EQ(cpuid_find(model, 0xd, 1)->ecx & both, both);
	CHECK(cpuid_clear_named(model, "ibt"));
	cpuid_fit_xsave(model);
	CHECK_EQ(cpuid_find(model, 0xd, 1)->ecx & both, 0);
	guest_cpu_destroy(model);
}

/* All three: the old clock, the new one, and that it is stable. */
static void kvmclock_can_be_masked(void)
{
	struct guest_cpu *model = everything(1);

	cpuid_get(model, 0x40000001, 0, 0)->eax = ~0u;
	CHECK(cpuid_clear_named(model, "kvmclock"));
	CHECK_EQ(cpuid_find(model, 0x40000001, 0)->eax, ~(1u | 1u << 3 | 1u << 24));
	guest_cpu_destroy(model);
}

/* ---- what a KVM shows ---- */

static bool guest_has(const char *masked, const char *name)
{
	struct guest_cpu *model = created(masked);
	bool yes = has(model, name);

	guest_cpu_destroy(model);
	return yes;
}

static void what_kvm_cannot_save_is_hidden(void)
{
	struct guest_cpu *all = everything(1);

	begin_kvm(all);
	CHECK(guest_has(NULL, "shstk"));
	CHECK(!guest_has("shstk", "shstk"));
	fake_kvm.caps[KVM_CAP_ONE_REG] = 0;
	CHECK(!guest_has(NULL, "shstk"));
	CHECK(guest_has(NULL, "ibt"));
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

static void the_large_state_is_asked_for(void)
{
	struct guest_cpu *all = everything(1);

	begin_kvm(all);
	CHECK(guest_has(NULL, "amx_tile"));
	CHECK_EQ(permission.asked, 0); /* a kernel without it */
	fake_kvm.caps[KVM_CAP_SYS_ATTRIBUTES] = 1;
	fake_kvm.xsave_parts = 1u << 17 | 1u << 18;
	CHECK(guest_has(NULL, "amx_tile"));
	CHECK_EQ(permission.asked, 1);
	CHECK(!guest_has("amx_tile", "amx_int8"));
	CHECK_EQ(permission.asked, 1);
	/* refused: KVM shows the small part, and the feature */
	permission.refuse = true;
	for (unsigned int i = 0; i < fake_kvm.cpuid_count; i++)
		if (fake_kvm.cpuid[i].function == 0xd && fake_kvm.cpuid[i].index == 0)
			fake_kvm.cpuid[i].eax &= ~(1u << 18);
	CHECK(!guest_has(NULL, "amx_tile"));
	CHECK_EQ(permission.asked, 2);
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

/* Intel's: ticks = crystal * EBX / EAX; and the hypervisor's leaf. */
static void rates_are_shown(void)
{
	struct guest_cpu *all = everything(1), *model;
	struct kvm_cpuid_entry2 *leaf;
	int vm, vcpu;

	memcpy(&cpuid_find(all, 0, 0)->ebx, "Genu", 4);
	memcpy(&cpuid_find(all, 0, 0)->edx, "ineI", 4);
	memcpy(&cpuid_find(all, 0, 0)->ecx, "ntel", 4);
	cpuid_get(all, 0x40000000, 0, 0)->eax = 0x40000001;
	begin_kvm(all);
	vm = ioctl(kvm.fd, KVM_CREATE_VM, 0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	model = created(NULL);
	CHECK_EQ(guest_cpu_apply(model, vcpu, 0, 2599997, &err), 0);
	CHECK(cpuid_find(model, 0, 0)->eax >= 0x16);
	leaf = cpuid_find(model, 0x15, 0);
	CHECK_EQ((uint64_t)leaf->ecx * leaf->ebx / leaf->eax, 2599997000ull);
	CHECK_EQ(leaf->ecx, 1000000000); /* what the local APICs count */
	CHECK_EQ(cpuid_find(model, 0x16, 0)->eax, 2600);
	CHECK_EQ(cpuid_find(model, 0x40000000, 0)->eax, 0x40000010);
	CHECK_EQ(cpuid_find(model, 0x40000010, 0)->eax, 2599997);
	CHECK_EQ(cpuid_find(model, 0x40000010, 0)->ebx, 1000000);
	guest_cpu_destroy(model);
	kvm_close(&kvm);
	guest_cpu_destroy(all);
	fake_kvm_reset();
}

static void topology_fits_the_cpus(void)
{
	static const struct {
		unsigned int cpus, bits;
	} cases[] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {64, 6}, {254, 8}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct guest_cpu *model = everything(cases[i].cpus);

		cpuid_set_topology(model);
		CHECK_EQ(cpuid_find(model, 0, 0)->eax, 0xb);
		CHECK_EQ(cpuid_find(model, 0xb, 0)->ebx, 1);
		CHECK_EQ(cpuid_find(model, 0xb, 1)->ebx, cases[i].cpus);
		CHECK_EQ(cpuid_find(model, 0xb, 1)->eax, cases[i].bits);
		CHECK_EQ(cpuid_find(model, 0xb, 1)->ecx, 0x201);
		CHECK_EQ(cpuid_find(model, 1, 0)->edx >> 28 & 1, cases[i].cpus > 1);
		CHECK_EQ(cpuid_find(model, 0x80000008, 0)->ecx & 0xff, cases[i].cpus - 1);
		/* The first levels are a core's own, the third is everybody's. */
		CHECK_EQ(cpuid_find(model, 4, 0)->eax >> 14 & 0xfff, 0);
		CHECK_EQ(cpuid_find(model, 4, 3)->eax >> 14 & 0xfff, (1u << cases[i].bits) - 1);
		guest_cpu_destroy(model);
	}
}

static void the_processor_has_its_name(void)
{
	struct guest_cpu *model = cpuid_alloc(1);
	uint32_t regs[4] = {0};

	cpuid_set_brand(model);
	CHECK(!cpuid_find(model, 0x80000003, 0));
	cpuid_get(model, 0x80000000, 0, 0)->eax = 0x80000008;
	cpuid_get(model, 0x80000003, 0, 0);
	cpuid_set_brand(model);
	__get_cpuid(0x80000003, &regs[0], &regs[1], &regs[2], &regs[3]);
	CHECK_EQ(cpuid_find(model, 0x80000003, 0)->ecx, regs[2]);
	CHECK(cpuid_find(model, 0x80000002, 0) && cpuid_find(model, 0x80000004, 0));
	guest_cpu_destroy(model);
}

/* KVM answers for them itself, unless they are above the last leaf; APIC ids are filled in later. */
static void leaves_of_zeroes_are_left_out(void)
{
	static const struct {
		uint32_t leaf, index;
		bool stays;
	} zeroes[] = {{2, 0, false}, {0x14, 0, false}, {0xd, 3, true}, {7, 2, true}, {0x80000009, 0, false}, {0x8000001e, 0, true},
		      {0x80000030, 0, true}, {0x40000005, 0, true}, {0x1f, 2, true}};
	struct guest_cpu *shown = everything(2), *model;

	cpuid_find(shown, 0, 0)->eax = 0x20;
	*cpuid_get(shown, 0x80000000, 0, 0) = (struct kvm_cpuid_entry2){.function = 0x80000000, .eax = 0x80000020};
	cpuid_find(shown, 0x8000001e, 0)->eax = cpuid_find(shown, 0x8000001e, 0)->edx = 0;
	for (size_t i = 0; i < ARRAY_SIZE(zeroes); i++)
		cpuid_get(shown, zeroes[i].leaf, zeroes[i].index, 0);
	begin_kvm(shown);
	model = created("pni"); /* which changes a leaf that stays */
	for (size_t i = 0; i < ARRAY_SIZE(zeroes); i++)
		CHECK_EQ(cpuid_find(model, zeroes[i].leaf, zeroes[i].index) != NULL, zeroes[i].stays);
	CHECK(cpuid_find(model, 7, 0) && cpuid_find(model, 1, 0) && cpuid_find(model, 0, 0));
	guest_cpu_destroy(model);
	guest_cpu_destroy(shown);
}

/* ---- what is hidden ---- */

/* All registers of the leaf. */
static uint32_t any_of(const struct guest_cpu *model, uint32_t leaf)
{
	const struct kvm_cpuid_entry2 *entry = cpuid_find(model, leaf, 0);

	return entry ? entry->eax | entry->ebx | entry->ecx | entry->edx : 0;
}

static struct guest_cpu *everything_and_more(void)
{
	static const uint32_t leaves[] = {0xa, 0x12, 0x14, 0x1c, 0x23, 0x40000001, 0x8000000a, 0x8000001b, 0x8000001f, 0x80000022};
	struct guest_cpu *all = everything(1);

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		*cpuid_get(all, leaves[i], 0, 0) = (struct kvm_cpuid_entry2){
			.function = leaves[i], .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u};
	return all;
}

/* Each row by itself: KVM shows it, and the guest sees it exactly if it was asked for. */
static void what_a_guest_seldom_needs_is_hidden(void)
{
	struct guest_cpu *all = everything_and_more();

	begin_kvm(all);
	for (unsigned int choice = 0; choice < 4; choice++) {
		struct guest_cpu *model = chosen(choice & 1, choice & 2);

		CHECK(model);
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			struct kvm_cpuid_entry2 *entry = cpuid_find(model, rows[i].leaf, rows[i].index);
			uint32_t seen = !entry ? 0 : rows[i].bits ? *cpuid_reg(entry, rows[i].reg) & rows[i].bits :
				        any_of(model, rows[i].leaf);
			bool wanted = (rows[i].when == UNLESS_NESTED && choice & 1) || (rows[i].when == UNLESS_PMU && choice & 2);

			if (rows[i].leaf == 0xd) /* cpuid_fit_xsave */
				continue;
			CHECK_EQ(seen != 0, wanted);
		}
		CHECK_EQ(has(model, "vmx"), choice & 1);
		CHECK_EQ(has(model, "svm"), choice & 1);
		CHECK(has(model, "avx2") && has(model, "x2apic") && has(model, "kvmclock") && has(model, "kvm_pv_eoi"));
		guest_cpu_destroy(model);
	}
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

static void what_kvm_does_not_offer_cannot_be_asked_for(void)
{
	struct guest_cpu *all = everything(1), *model;

	*cpuid_reg(cpuid_find(all, 1, 0), ECX) &= ~(1u << 5);
	*cpuid_reg(cpuid_find(all, 0x80000001, 0), ECX) &= ~(1u << 2 | 1u << 23);
	begin_kvm(all);
	CHECK(!chosen(true, false));
	CHECK(strstr(err.text, "nested=on: this host's KVM does not offer it"));
	fake_kvm.caps[KVM_CAP_PMU_CAPABILITY] = 0;
	CHECK(!chosen(false, true));
	CHECK(strstr(err.text, "pmu=on: this host's KVM does not offer performance counters"));
	fake_kvm.caps[KVM_CAP_PMU_CAPABILITY] = KVM_PMU_CAP_DISABLE; /* AMD's oldest counters */
	model = chosen(false, true);
	CHECK(model);
	guest_cpu_destroy(model);
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

static void kvm_gives_what_cpuid_shows_and_no_more(void)
{
	static const uint64_t strict[] = {KVM_CAP_PMU_CAPABILITY, KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_X86_NOTIFY_VMEXIT,
					  KVM_CAP_ENFORCE_PV_FEATURE_CPUID};
	static const uint64_t as_it_was[] = {KVM_CAP_X86_NOTIFY_VMEXIT};
	struct guest_cpu *all = everything(1), *model, *old;
	json_t *offered;

	begin_kvm(all);
	fake_kvm.caps[KVM_CAP_DISABLE_QUIRKS2] = 0x7f;
	model = chosen(false, false);
	expect_caps(model, false, strict, ARRAY_SIZE(strict));
	/* it arrives so, and one of a program that did not know of it stays as it was */
	CHECK_EQ(guest_cpu_write(model, &offered, &err), 0);
	CHECK_EQ(guest_cpu_read(1, offered, &old, &err), 0);
	expect_caps(old, false, strict, ARRAY_SIZE(strict));
	guest_cpu_destroy(old);
	json_object_del(offered, "strict");
	CHECK_EQ(guest_cpu_read(1, offered, &old, &err), 0);
	expect_caps(old, true, as_it_was, ARRAY_SIZE(as_it_was));
	expect_caps(old, false, as_it_was, ARRAY_SIZE(as_it_was));
	guest_cpu_destroy(old);
	/* an old KVM */
	fake_kvm.caps[KVM_CAP_DISABLE_QUIRKS2] = fake_kvm.caps[KVM_CAP_PMU_CAPABILITY] = 0;
	fake_kvm.caps[KVM_CAP_ENFORCE_PV_FEATURE_CPUID] = fake_kvm.caps[KVM_CAP_X86_NOTIFY_VMEXIT] = 0;
	expect_caps(model, false, NULL, 0);
	guest_cpu_destroy(model);
	json_decref(offered);
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

static void a_refused_capability_is_an_error(void)
{
	struct guest_cpu *all = everything(1), *model;
	const struct cpu_config config = {0};

	begin_kvm(all);
	fake_kvm.caps[KVM_CAP_DISABLE_QUIRKS2] = 0x7f;
	CHECK_EQ(kvm_create_vm(&kvm, &err), 0);
	model = chosen(false, false);
	for (unsigned int n = 1; n <= 3; n++) {
		fake_kvm_fail_request(KVM_ENABLE_CAP, n, EINVAL);
		CHECK_EQ(guest_cpu_bind(&kvm, model, &config, &err), -EINVAL);
		CHECK(strstr(err.text, "KVM_CAP_"));
	}
	guest_cpu_destroy(model);
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

/* An older program's offer does not say what was hidden: nothing was. */
static void an_older_offer_shows_what_it_shows(void)
{
	static const bool choices[][2] = {{false, false}, {true, false}, {false, true}, {true, true}};
	struct guest_cpu *all = everything_and_more();

	begin_kvm(all);
	for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
		struct guest_cpu *model = chosen(choices[i][0], choices[i][1]);
		struct cpu_config config = {0};
		json_t *offered;

		CHECK_EQ(guest_cpu_write(model, &offered, &err), 0);
		guest_cpu_choices(offered, &config);
		CHECK_EQ(config.nested, choices[i][0]);
		CHECK_EQ(config.pmu, choices[i][1]);
		config.nested = !choices[i][0];
		json_object_set_new(offered, "cpuid", json_integer(1));
		guest_cpu_choices(offered, &config);
		CHECK_EQ(config.nested, !choices[i][0]);
		json_decref(offered);
		guest_cpu_destroy(model);
	}
	kvm_close(&kvm);
	guest_cpu_destroy(all);
}

TEST_MAIN(TEST(masks_reach_what_is_built_on_a_feature), TEST(extended_state_follows_its_users),
	  TEST(parts_of_the_state_stay_together), TEST(shadow_stacks_and_branch_tracking_can_be_masked),
	  TEST(kvmclock_can_be_masked), TEST(what_kvm_cannot_save_is_hidden), TEST(the_large_state_is_asked_for),
	  TEST(rates_are_shown), TEST(topology_fits_the_cpus), TEST(the_processor_has_its_name),
	  TEST(leaves_of_zeroes_are_left_out), TEST(what_a_guest_seldom_needs_is_hidden),
	  TEST(what_kvm_does_not_offer_cannot_be_asked_for), TEST(kvm_gives_what_cpuid_shows_and_no_more),
	  TEST(a_refused_capability_is_an_error), TEST(an_older_offer_shows_what_it_shows))
