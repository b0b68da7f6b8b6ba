/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name of this host for as long as it has the same processor and the same KVM: the kernel's boot, the loaded module of
 * KVM, and what CPUID says without KVM. A module that is loaded again, with other parameters, has another inode in sysfs;
 * CPUID changes with new microcode, or when the host is a virtual machine that has moved. The name is also that of the
 * guest's CPU, which ran here and can run here again (cpuid_offer_x86.c).
 */
#include "vmm/kvm/cpuid_x86.h"

#include <cpuid.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_LEN 36u

/* FNV-1a. */
static uint64_t cpuid_host_mix(uint64_t hash, uint64_t value)
{
	for (unsigned int i = 0; i < sizeof(value); i++)
		hash = (hash ^ (value >> 8 * i & 0xff)) * 0x100000001b3ull;
	return hash;
}

/* The inode of the module that has the processor's part of KVM, or of the other part, which cannot be loaded again without
 * it; 0: not known. */
static uint64_t cpuid_host_module(void)
{
	static const char *const paths[] = {"/sys/module/kvm_intel", "/sys/module/kvm_amd", "/sys/module/kvm"};
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (stat(paths[i], &st) == 0)
			return st.st_ino;
	return 0;
}

/* Each CPUID takes 4 us if the host is a virtual machine: those leaves that have the model, and what updates change. */
static uint64_t cpuid_host_processor(uint64_t hash)
{
	static const struct {
		uint32_t leaf, index, ebx; /* ebx: what is no APIC id */
	} leaves[] = {{1, 0, 0xff00}, {7, 0, ~0u}, {0x80000008, 0, ~0u}};

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
		uint32_t eax, ebx, ecx, edx;

		__cpuid_count(leaves[i].leaf, leaves[i].index, eax, ebx, ecx, edx);
		hash = cpuid_host_mix(hash, (uint64_t)eax << 32 | (ebx & leaves[i].ebx));
		hash = cpuid_host_mix(hash, (uint64_t)ecx << 32 | edx);
	}
	return hash;
}

static uint64_t cpuid_host_guest(uint64_t hash, const struct guest_cpu *model)
{
	for (uint32_t i = 0; i < model->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &model->cpuid->entries[i];

		hash = cpuid_host_mix(hash, (uint64_t)entry->function << 32 | entry->index);
		hash = cpuid_host_mix(hash, (uint64_t)entry->eax << 32 | entry->ebx);
		hash = cpuid_host_mix(hash, (uint64_t)entry->ecx << 32 | entry->edx);
	}
	return hash;
}

void cpuid_host_name(const struct guest_cpu *model, char ret[CPUID_HOST_NAME])
{
	uint64_t hash = 0xcbf29ce484222325ull, module = cpuid_host_module();
	_cleanup_(fd_close) int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);

	ret[0] = 0;
	if (!module || fd < 0 || read(fd, ret, BOOT_ID_LEN) != BOOT_ID_LEN) {
		ret[0] = 0;
		return;
	}
	hash = cpuid_host_guest(cpuid_host_processor(cpuid_host_mix(hash, module)), model);
	snprintf(ret + BOOT_ID_LEN, CPUID_HOST_NAME - BOOT_ID_LEN, "-%016llx", (unsigned long long)hash);
}
