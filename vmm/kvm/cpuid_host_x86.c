/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name of this host for as long as it has the same processor and the same KVM: the kernel's boot, the device /dev/kvm,
 * and what CPUID says without KVM. KVM makes another device, with another inode in sysfs, when its module is loaded again,
 * perhaps with other parameters; CPUID changes with new microcode, or when the host is a virtual machine that has moved.
 * The name is also that of the guest's CPU, which ran here and can run here again (cpuid_offer_x86.c).
 */
#include "vmm/kvm/cpuid_x86.h"

#include "core/errand.h"

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

/* The device's inode in sysfs; 0: not known. */
static uint64_t cpuid_host_device(void)
{
	struct stat st;

	return stat("/sys/devices/virtual/misc/kvm", &st) == 0 ? st.st_ino : 0;
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
	uint64_t hash = 0xcbf29ce484222325ull, device = cpuid_host_device();
	_cleanup_(fd_close) int fd = errand_open(BOOT_ID, O_RDONLY | O_CLOEXEC, 0);

	ret[0] = 0;
	if (!device || fd < 0 || read(fd, ret, BOOT_ID_LEN) != BOOT_ID_LEN) {
		ret[0] = 0;
		return;
	}
	hash = cpuid_host_guest(cpuid_host_processor(cpuid_host_mix(hash, device)), model);
	snprintf(ret + BOOT_ID_LEN, CPUID_HOST_NAME - BOOT_ID_LEN, "-%016llx", (unsigned long long)hash);
}
