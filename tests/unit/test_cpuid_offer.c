/* SPDX-License-Identifier: Apache-2.0 */
/* vmm/kvm/cpuid_offer_x86.c: a CPU that travels arrives as it was or is refused. */
#include "tests/unit/cpuid_rig.h"

/* A host of its own: every feature, addresses of 40 bits, and parts of the extended state that lie somewhere. */
static struct guest_cpu *host(void)
{
	struct guest_cpu *model = everything(2);

	model->phys_bits = 40;
	model->has_capabilities = true;
	cpuid_find(model, 0xd, 0)->eax = 7;
	cpuid_find(model, 0xd, 0)->edx = 0;
	*cpuid_get(model, 0xa, 0, 0) = (struct kvm_cpuid_entry2){.function = 0xa, .eax = 0x300402};
	return model;
}

static void a_cpu_arrives_as_it_was(void)
{
	struct guest_cpu *from = everything(2), *to = cpuid_alloc(2);
	json_t *offered;

	CHECK_EQ(guest_cpu_write(from, &offered, &err), 0);
	CHECK_EQ(cpuid_offer_read_table(offered, to, &err), 0);
	CHECK_EQ(to->cpuid->nent, from->cpuid->nent);
	CHECK(memcmp(to->cpuid->entries, from->cpuid->entries, from->cpuid->nent * sizeof(from->cpuid->entries[0])) == 0);
	json_decref(offered);
	guest_cpu_destroy(from);
	guest_cpu_destroy(to);
}

static bool unreadable(const char *text)
{
	struct guest_cpu *to = cpuid_alloc(2);
	json_t *offered = json_loads(text, 0, NULL);
	int code = cpuid_offer_read_table(offered, to, &err);

	json_decref(offered);
	guest_cpu_destroy(to);
	return code == -EBADMSG;
}

static void nonsense_is_refused(void)
{
	static const char format[] = "{\"architecture\": \"x86-64\", \"cpuid\": %s}";
	static const char *const tables[] = {
		"[]", "{}", "3", "[3]", "[[0,0,0,0,0,0]]", "[[0,0,0,0,0,0,0,0]]", "[[0,0,0,0,0,0,-1]]",
		"[[0,0,0,0,0,0,4294967296]]", "[[0,0,0,0,0,0,\"1\"]]", "[[0,0,2,0,0,0,0]]",
		"[[1,0,0,0,0,0,0],[1,0,0,0,0,0,1]]",
	};
	static char text[CPUID_MAX_ENTRIES * 32];
	size_t used = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		snprintf(text, sizeof(text), format, tables[i]);
		CHECK(unreadable(text));
	}
	CHECK_EQ(cpuid_offer_read_table(NULL, NULL, &err), -ENOTSUP);
	used = (size_t)snprintf(text, sizeof(text), "{\"architecture\": \"x86-64\", \"cpuid\": [[0,0,0,0,0,0,0]");
	for (unsigned int i = 1; i <= CPUID_MAX_ENTRIES; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, ",[%u,0,0,0,0,0,0]", i);
	snprintf(text + used, sizeof(text) - used, "]}");
	CHECK(unreadable(text));
}

static int check(struct guest_cpu *guest, const struct guest_cpu *here)
{
	return cpuid_offer_check(guest, here, false, "do this", NULL, &err);
}

static void missing_features_are_named(void)
{
	struct guest_cpu *guest = host(), *here = host();

	CHECK_EQ(check(guest, here), 0);
	cpuid_find(here, 1, 0)->ecx &= ~(1u << 27 | 1u << 31);
	cpuid_find(here, 1, 0)->edx &= ~(1u << 28);
	CHECK_EQ(check(guest, here), 0);
	cpuid_find(here, 7, 0)->ebx &= ~(1u << 16 | 1u << 13);
	cpuid_find(here, 1, 0)->ecx &= ~(1u << 19);
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK_STR(err.text, "this host's CPU or its KVM lacks features of the guest's CPU: sse4_1, "
			    "bit 13 of CPUID leaf 0x7.0 EBX, avx512f; do this");
	cpuid_find(here, 7, 0)->ebx = cpuid_find(here, 7, 0)->ecx = cpuid_find(here, 7, 0)->edx = 0;
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK(strstr(err.text, " more"));
	guest_cpu_destroy(guest);
	guest_cpu_destroy(here);
}

/* Faults of processors that the guest does not work around, because its processor did not have them. */
static void a_processor_with_more_faults_is_refused(void)
{
	static const struct {
		uint64_t guest, here;
		const char *words; /* NULL: accepted */
	} cases[] = {
		{0, 0, NULL},
		{0, 1 << 0 | 1 << 5, NULL}, /* more than the guest needs */
		{1 << 0 | 1 << 5, 1 << 0 | 1 << 5, NULL},
		{1 << 0 | 1 << 5 | 1 << 8, 1 << 5, "CPU: RDCL_NO, TAA_NO;"},
		{1ull << 62, 0, "CPU: ITS_NO;"},
		{1ull << 40, 0, "CPU: bit 40 of IA32_ARCH_CAPABILITIES;"},
		{1 << 2, 0, NULL},           /* a weakness that it has seen, and that is not here */
		{0, 1 << 19, "CPU: RRSBA (a weakness that the guest does not know of);"},
	};
	struct guest_cpu *guest = host(), *here = host();

	guest->has_capabilities = here->has_capabilities = true;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		guest->capabilities = cases[i].guest;
		here->capabilities = cases[i].here;
		CHECK_EQ(check(guest, here), cases[i].words ? -EINVAL : 0);
		CHECK(!cases[i].words || strstr(err.text, cases[i].words));
	}
	/* It is told that, and comes nevertheless. */
	CHECK_EQ(cpuid_offer_check(guest, here, true, "do this", NULL, &err), 0);
	CHECK(guest->forced);
	/* A guest that does not see the register works around everything. */
	cpuid_find(guest, 7, 0)->edx &= ~(1u << 29);
	CHECK_EQ(check(guest, here), 0);
	cpuid_find(guest, 7, 0)->edx |= 1u << 29;
	guest->has_capabilities = false;
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK(strstr(err.text, "IA32_ARCH_CAPABILITIES, which the source does not tell;"));
	guest_cpu_destroy(guest);
	guest_cpu_destroy(here);
}

static void capabilities_travel(void)
{
	struct guest_cpu *from = everything(2), *to = cpuid_alloc(2);
	json_t *offered;

	from->has_capabilities = true;
	from->capabilities = 1ull << 62 | 5;
	CHECK_EQ(guest_cpu_write(from, &offered, &err), 0);
	CHECK_EQ(cpuid_offer_read_capabilities(offered, to, &err), 0);
	CHECK(to->has_capabilities && to->capabilities == from->capabilities);
	CHECK_EQ(json_object_del(offered, "arch_capabilities"), 0);
	CHECK_EQ(cpuid_offer_read_capabilities(offered, to, &err), 0);
	CHECK(!to->has_capabilities);
	for (const char *const *bad = (const char *const[]){"-1", "\"1\"", "1.0", "null", NULL}; *bad; bad++) {
		json_object_set_new(offered, "arch_capabilities", json_loads(*bad, JSON_DECODE_ANY, NULL));
		CHECK_EQ(cpuid_offer_read_capabilities(offered, to, &err), -EBADMSG);
	}
	json_decref(offered);
	guest_cpu_destroy(from);
	guest_cpu_destroy(to);
}

static void promises_are_kept(void)
{
	struct guest_cpu *guest = host(), *here = host();

	cpuid_find(here, 0xd, 2)->ebx = 64;
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK(strstr(err.text, "part 2"));
	cpuid_find(here, 0xd, 2)->ebx = ~0u;
	here->phys_bits = 39;
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK(strstr(err.text, "40 bits"));
	here->phys_bits = 40;
	cpuid_find(here, 0xa, 0)->eax = 0x300302;
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK(strstr(err.text, "counters"));
	cpuid_find(here, 0xa, 0)->eax = 0x300502;
	CHECK_EQ(check(guest, here), 0);
	memcpy(&cpuid_find(here, 0, 0)->ebx, "Genu", 4);
	CHECK_EQ(check(guest, here), -EINVAL);
	CHECK(strstr(err.text, "Genu"));
	guest_cpu_destroy(guest);
	guest_cpu_destroy(here);
}

/* On a KVM that shows less. Takes host. */
static void expect_compared(json_t *offered, json_t *host)
{
	unsigned int before = fake_kvm_count(KVM_GET_SUPPORTED_CPUID);
	struct guest_cpu *model;

	json_object_set_new(offered, "host", host);
	CHECK_EQ(guest_cpu_read(2, offered, &model, &err), 0);
	CHECK(!guest_cpu_known(model));
	CHECK_EQ(guest_cpu_adopt(&kvm, model, false, "do this", NULL, &err), -EINVAL);
	CHECK_EQ(fake_kvm_count(KVM_GET_SUPPORTED_CPUID), before + 1);
	guest_cpu_destroy(model);
}

/* It is not compared again on the very host on which it ran, and on no other. */
static void a_cpu_that_was_here_may_come_back(void)
{
	struct guest_cpu *shown = host(), *from, *to;
	json_t *offered, *again;

	begin_kvm(shown);
	CHECK_EQ(guest_cpu_create(&kvm, 2, NULL, &from, &err), 0);
	CHECK_EQ(guest_cpu_write(from, &offered, &err), 0);
	if (!json_object_get(offered, "host"))
		SKIP("this host has no boot id, or no KVM");
	CHECK_EQ(fake_kvm_count(KVM_GET_SUPPORTED_CPUID), 1);
	fake_kvm.cpuid_count = 2;
	CHECK_EQ(guest_cpu_read(2, offered, &to, &err), 0);
	CHECK(guest_cpu_known(to));
	CHECK_EQ(guest_cpu_adopt(&kvm, to, false, "do this", NULL, &err), 0);
	CHECK_EQ(fake_kvm_count(KVM_GET_SUPPORTED_CPUID), 1);
	CHECK_EQ(guest_cpu_write(to, &again, &err), 0);
	CHECK(json_equal(offered, again));
	CHECK_EQ(to->phys_bits, from->phys_bits);
	for (json_t *const *host = (json_t *const[]){json_string("another"), json_integer(1), NULL}; *host; host++)
		expect_compared(offered, *host);
	/* nor is another CPU with the name of this one */
	json_array_set_new(json_array_get(json_object_get(again, "cpuid"), 1), 3, json_integer(4));
	expect_compared(again, json_incref(json_object_get(again, "host")));
	/* nor is one named that lacks something here */
	from->forced = true;
	json_decref(again);
	CHECK_EQ(guest_cpu_write(from, &again, &err), 0);
	CHECK(!json_object_get(again, "host"));
	json_decref(offered);
	json_decref(again);
	guest_cpu_destroy(from);
	guest_cpu_destroy(to);
	guest_cpu_destroy(shown);
}

TEST_MAIN(TEST(a_cpu_arrives_as_it_was), TEST(nonsense_is_refused), TEST(missing_features_are_named),
	  TEST(a_processor_with_more_faults_is_refused), TEST(capabilities_travel), TEST(promises_are_kept),
	  TEST(a_cpu_that_was_here_may_come_back))
