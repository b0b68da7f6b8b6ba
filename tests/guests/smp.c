/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts the other vCPUs one after the other (INIT, SIPI to page 8, by x2APIC) and prints how many came up and with
 * which id. How many there are it learns from CPUID leaf 0xb.
 */
#include "tests/guests/guest.h"

#define MSR_APIC_BASE 0x1b
#define MSR_X2APIC_ICR 0x830

static volatile uint32_t arrived;

void ap_main(void)
{
	uint32_t regs[4];

	cpuid(0xb, 0, regs);
	put("cpu ");
	put_hex(regs[3], 2);
	put("\n");
	arrived++;
}

void guest_main(const uint32_t *info)
{
	uint32_t regs[4], expected;

	cpuid(0xb, 1, regs);
	expected = regs[1];
	for (const char *from = ap_start; from < ap_end; from++)
		((volatile char *)0x8000)[from - ap_start] = *from;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 3 << 10);
	for (uint32_t id = 1; id < expected; id++) {
		wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4500);
		wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4608);
		while (arrived < id)
			__asm__ volatile("pause");
	}
	put("all ");
	put_hex(arrived + 1, 2);
	put("\n");
}
