/* SPDX-License-Identifier: Apache-2.0 */
/* Enables virtualization as a hypervisor would. A processor without it raises an exception, for which there is no handler. */
#include "tests/guests/guest.h"

#define MSR_EFER 0xc0000080u
#define EFER_SVME (1u << 12)
#define CR4_VMXE (1ul << 13)

void guest_main(const uint32_t *info)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = {0, 0};
	uint32_t regs[4];
	uint64_t cr4;

	cpuid(0, 0, regs);
	put("trying\n");
	__asm__ volatile("lidt %0" : : "m"(none));
	if (regs[2] == 0x6c65746e) { /* "ntel" */
		__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
		__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_VMXE));
	} else {
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	}
	put("virtualization is enabled\n");
}
