/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of vmm/kvm/cpuid* have in common: made-up leaves, and a KVM of the tests' own that shows them. With the
 * modules themselves, whose tables the tests read; for one source of a program.
 */
#pragma once

#include "tests/unit/fake_kvm.h"
#include "tests/unit/test.h"
#include "vmm/kvm/cpuid_hide_x86.c"
#include "vmm/kvm/cpuid_offer_x86.c"
#include "vmm/kvm/cpuid_x86.c"

#include <dlfcn.h>
#include <stdarg.h>

static struct {
	unsigned int asked;
	bool refuse;
} permission;

/* In the place of the C library's: counts who asks for AMX's state. */
long syscall(long number, ...)
{
	__typeof__(syscall) *real = (__typeof__(syscall) *)dlsym(RTLD_NEXT, "syscall");
	va_list args;
	long a[6];

	va_start(args, number);
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number != SYS_arch_prctl)
		return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	CHECK(a[0] == ARCH_REQ_XCOMP_GUEST_PERM && a[1] == 18);
	permission.asked++;
	return permission.refuse ? -1 : 0;
}

/* A model with every feature bit set. */
static inline struct guest_cpu *everything(unsigned int cpus)
{
	static const uint32_t leaves[][2] = {{0, 0}, {1, 0}, {4, 0}, {4, 1}, {4, 3}, {7, 0}, {7, 1}, {0xd, 0}, {0xd, 1},
					     {0xd, 2}, {0xd, 5}, {0x80000001, 0}, {0x80000008, 0}, {0x8000001e, 0}};
	struct guest_cpu *model = cpuid_alloc(cpus);

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		*cpuid_get(model, leaves[i][0], leaves[i][1], 0) = (struct kvm_cpuid_entry2){
			.function = leaves[i][0], .index = leaves[i][1], .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u};
	cpuid_find(model, 0, 0)->eax = 7;
	cpuid_find(model, 4, 0)->eax = 1 | 1 << 5;
	cpuid_find(model, 4, 1)->eax = 2 | 1 << 5;
	cpuid_find(model, 4, 3)->eax = 3 | 3 << 5;
	return model;
}

static inline bool has(const struct guest_cpu *model, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(cpuid_features); i++)
		if (strcmp(cpuid_features[i].name, name) == 0)
			return *cpuid_reg(cpuid_find(model, cpuid_features[i].leaf, cpuid_features[i].index), cpuid_features[i].reg) >>
				       cpuid_features[i].bit & 1;
	return false;
}

static struct kvm kvm;
static struct err err;

static inline void begin_kvm(const struct guest_cpu *shown)
{
	fake_kvm_reset();
	permission.asked = 0;
	permission.refuse = false;
	memcpy(fake_kvm.cpuid, shown->cpuid->entries, shown->cpuid->nent * sizeof(fake_kvm.cpuid[0]));
	fake_kvm.cpuid_count = shown->cpuid->nent;
	CHECK_EQ(kvm_open(&kvm, &err), 0);
}

static inline struct guest_cpu *created(const char *without)
{
	char *masked = (char *)(uintptr_t)without;
	const struct cpu_config config = {.masked = &masked, .masked_count = masked != NULL};
	struct guest_cpu *model;

	CHECK_EQ(guest_cpu_create(&kvm, 1, &config, &model, &err), 0);
	return model;
}

static inline struct guest_cpu *chosen(bool nested, bool pmu)
{
	const struct cpu_config config = {.nested = nested, .pmu = pmu};
	struct guest_cpu *model;

	return guest_cpu_create(&kvm, 1, &config, &model, &err) ? NULL : model;
}

/* Which capabilities of the VM and of its vCPU are set for this CPU, in order. */
static inline void expect_caps(struct guest_cpu *model, bool pmu, const uint64_t *caps, size_t count)
{
	const struct cpu_config config = {.pmu = pmu};
	unsigned int before = fake_kvm_count(KVM_ENABLE_CAP);
	int vcpu;

	CHECK_EQ(kvm_create_vm(&kvm, &err), 0);
	CHECK_EQ(guest_cpu_bind(&kvm, model, &config, &err), 0);
	vcpu = ioctl(kvm.vm_fd, KVM_CREATE_VCPU, 0);
	CHECK_EQ(guest_cpu_apply(model, vcpu, 0, 1000000, &err), 0);
	CHECK_EQ(fake_kvm_count(KVM_ENABLE_CAP) - before, count);
	for (size_t i = 0; i < count; i++)
		CHECK(fake_kvm_find(0, KVM_ENABLE_CAP, caps[i]) >= 0);
	close(vcpu);
	fd_close(&kvm.vm_fd);
}
