/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a number into every page of a piece of memory, again and again, and checks each time that the number of the pass before
 * is there: a page that was lost or came late on the way to another host is found. Every vCPU has pages of its own. Ends at
 * the power button and tells how many passes there were, and how many pages were wrong.
 *
 * Command line: "pages=N" (4096 unless said otherwise), "pause=N" (turns of a loop of 32 steps between two pages), "passes=N" (ends
 * by itself after so many), "rebooted" (and by a reset then).
 */
#include "tests/guests/guest.h"

#define FIRST 0x1000000ul /* 16 MiB */
#define PAGE 4096ul
#define MSR_APIC_BASE 0x1b
#define MSR_X2APIC_ICR 0x830
#define MAX_CPUS 16

static volatile uint32_t arrived, ended, stop;
static volatile uint64_t wrong, passes[MAX_CPUS];
static uint32_t cpus;
static uint64_t pages = 4096, delay, limit;

static uint64_t number_after(const char *text, const char *key, uint64_t otherwise)
{
	uint64_t value = 0;

	for (; text && *text; text++) {
		const char *at = text, *letter = key;

		while (*letter && *at == *letter)
			at++, letter++;
		if (*letter)
			continue;
		for (; *at >= '0' && *at <= '9'; at++)
			value = value * 10 + (uint64_t)(*at - '0');
		return value;
	}
	return otherwise;
}

static uint64_t pattern(uint64_t page, uint64_t pass)
{
	return pass ? (page << 32 | 0x5a) ^ pass * 0x9e3779b97f4a7c15ul : 0;
}

/* The last word of a page, and now and then its first: both halves of a write must arrive. */
static void visit(uint64_t page, uint64_t pass)
{
	volatile uint64_t *words = (volatile uint64_t *)(FIRST + page * PAGE);

	if (words[0] != pattern(page, pass - 1) || words[511] != pattern(page, pass - 1)) {
		wrong++;
		put("WRONG page ");
		put_hex(page, 8);
		put("\n");
	}
	words[0] = words[511] = pattern(page, pass);
	for (uint64_t i = 0; i < delay * 32; i++)
		__asm__ volatile(""); /* not `pause`, which may end the guest's turn each time */
}

static int pressed(void)
{
	return inl(POWER + 4) & 1;
}

static void work(uint32_t cpu)
{
	for (uint64_t pass = 1; !stop; pass++) {
		for (uint64_t page = cpu; page < pages; page += cpus) {
			visit(page, pass);
			if (cpu == 0 && (page & 0xff) == 0 && pressed())
				stop = 1;
		}
		passes[cpu] = pass;
		if (pass == limit)
			stop = 1;
		if (cpu == 0)
			put(".");
	}
}

void ap_main(void)
{
	uint32_t cpu = ++arrived;

	work(cpu);
	__atomic_fetch_add(&ended, 1, __ATOMIC_SEQ_CST);
}

static void start_others(void)
{
	for (const char *from = ap_start; from < ap_end; from++)
		((volatile char *)0x8000)[from - ap_start] = *from;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 3 << 10);
	for (uint32_t id = 1; id < cpus; id++) {
		wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4500);
		wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4608);
		while (arrived < id)
			__asm__ volatile("pause");
	}
}

void guest_main(const uint32_t *info)
{
	const char *line = (const char *)*(const uint64_t *)(info + 6);
	uint32_t regs[4];

	pages = number_after(line, "pages=", pages);
	delay = number_after(line, "pause=", 0);
	limit = number_after(line, "passes=", 0);
	cpuid(0xb, 1, regs);
	cpus = regs[1] && regs[1] <= MAX_CPUS ? regs[1] : 1;
	put("begins\n");
	start_others();
	work(0);
	while (ended < cpus - 1)
		__asm__ volatile("pause");
	put("\npasses ");
	put_hex(passes[0], 8);
	put(", wrong ");
	put_hex(wrong, 8);
	put("\n");
	if (number_after(line, "rebooted", 1) == 0)
		outb(POWER + 2, 1);
}
