/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is moved while it works, and checks itself all the time. Every vCPU keeps values of its own in registers that
 * nothing else here touches (SSE, debug and model-specific ones), fills memory of its own with a pattern that changes and reads
 * the one before, looks that its time stamp counter does not go back, and has a timer: the even ones a periodic one, the
 * odd ones a deadline that its interrupt sets anew. The serial port's interrupt comes by the IOAPIC.
 *
 * It prints "ready" and goes on until 'e' is typed. Then every timer must tick again, every vCPU must answer an interrupt that
 * the first one sends, and it prints "good", or one line for what is not.
 */
#include "tests/guests/guest.h"

#define IOAPIC 0xfec00000ul
#define SERIAL_PIN 4
#define SERIAL_VECTOR 0x40
#define TIMER_VECTOR 0x41
#define CALL_VECTOR 0x42

#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC_ICR 0x830
#define MSR_X2APIC_LVT_TIMER 0x832
#define MSR_X2APIC_INITIAL_COUNT 0x838
#define MSR_X2APIC_DIVIDE 0x83e
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_FS_BASE 0xc0000100
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_SYSENTER_EIP 0x176

#define DEADLINE 2000000ull /* TSC ticks, about a millisecond */
#define MAX_CPUS 8
#define PATTERN_WORDS 4096 /* of 8 bytes, a vCPU */

static struct cpu {
	volatile uint32_t ticks, calls, rounds;
	uint64_t tsc;
	const char *volatile wrong;
	uint64_t words[PATTERN_WORDS] __attribute__((aligned(4096)));
} cpus[MAX_CPUS];

static uint8_t stacks[MAX_CPUS][4096] __attribute__((aligned(16)));
static volatile uint32_t count, arrived;
static volatile uint8_t typed;

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (uint64_t)high << 32;
}

static uint32_t my_id(void)
{
	return (uint32_t)rdmsr(0x802);
}

/* ---- interrupts ---- */

__attribute__((interrupt)) static void on_serial(struct frame *frame)
{
	(void)frame;
	while (inb(COM1 + 5) & 1)
		typed = inb(COM1);
	(void)inb(COM1 + 2);
	end_of_interrupt();
}

__attribute__((interrupt)) static void on_timer(struct frame *frame)
{
	uint32_t id = my_id();

	(void)frame;
	cpus[id].ticks++;
	if (id & 1)
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + DEADLINE);
	end_of_interrupt();
}

__attribute__((interrupt)) static void on_call(struct frame *frame)
{
	(void)frame;
	cpus[my_id()].calls++;
	end_of_interrupt();
}

static void start_timer(uint32_t id)
{
	if (id & 1) {
		wrmsr(MSR_X2APIC_LVT_TIMER, 2 << 17 | TIMER_VECTOR);
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + DEADLINE);
		return;
	}
	wrmsr(MSR_X2APIC_DIVIDE, 3);
	wrmsr(MSR_X2APIC_LVT_TIMER, 1 << 17 | TIMER_VECTOR);
	wrmsr(MSR_X2APIC_INITIAL_COUNT, 1000000);
}

/* ---- what is kept ---- */

static uint64_t mark(uint32_t id, uint32_t what)
{
	return 0x00005eed00000000ull + ((uint64_t)id << 16) + what * 0x101;
}

static void set_registers(uint32_t id)
{
	uint64_t cr4, sse[2] = {mark(id, 40), mark(id, 41)};

	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | 0x600));
	__asm__ volatile("movdqu %0, %%xmm3" : : "m"(sse));
	__asm__ volatile("mov %0, %%dr0\n\tmov %1, %%dr3" : : "r"(mark(id, 42)), "r"(mark(id, 43)));
	__asm__ volatile("mov %0, %%cr2" : : "r"(mark(id, 44)));
	wrmsr(MSR_FS_BASE, mark(id, 45));
	wrmsr(MSR_KERNEL_GS_BASE, mark(id, 46));
	wrmsr(MSR_LSTAR, mark(id, 47));
	wrmsr(MSR_SYSENTER_EIP, (uint32_t)mark(id, 48)); /* AMD's has 32 bits: SYSENTER is not for long mode there */
	wrmsr(MSR_STAR, mark(id, 49));
}

static const char *check_registers(uint32_t id)
{
	uint64_t sse[2], dr0, dr3, cr2;

	__asm__ volatile("movdqu %%xmm3, %0" : "=m"(sse));
	__asm__ volatile("mov %%dr0, %0\n\tmov %%dr3, %1\n\tmov %%cr2, %2" : "=r"(dr0), "=r"(dr3), "=r"(cr2));
	if (sse[0] != mark(id, 40) || sse[1] != mark(id, 41))
		return "SSE registers";
	if (dr0 != mark(id, 42) || dr3 != mark(id, 43))
		return "debug registers";
	if (cr2 != mark(id, 44))
		return "CR2";
	if (rdmsr(MSR_FS_BASE) != mark(id, 45) || rdmsr(MSR_KERNEL_GS_BASE) != mark(id, 46))
		return "bases of segments";
	if (rdmsr(MSR_LSTAR) != mark(id, 47) || rdmsr(MSR_STAR) != mark(id, 49))
		return "MSRs of SYSCALL";
	if (rdmsr(MSR_SYSENTER_EIP) != (uint32_t)mark(id, 48))
		return "MSR of SYSENTER";
	return 0;
}

/* One word in sixteen of a round; every word says which round wrote it last. */
static const char *check_memory(struct cpu *cpu, uint32_t id)
{
	uint32_t round = cpu->rounds, first = round % 16;

	for (uint32_t i = first; i < PATTERN_WORDS; i += 16) {
		uint64_t expected = round < 16 ? 0 : mark(id, i) + ((uint64_t)(round - 16) << 48);

		if (cpu->words[i] != expected)
			return "memory";
		cpu->words[i] = mark(id, i) + ((uint64_t)round << 48);
	}
	cpu->rounds = round + 1;
	return 0;
}

static const char *check_time(struct cpu *cpu)
{
	uint64_t now = rdtsc(), before = cpu->tsc;

	cpu->tsc = now;
	if (now < before)
		return "TSC went back";
	return before && now - before > 100000000000ull ? "TSC jumped" : 0;
}

static void work(uint32_t id)
{
	struct cpu *cpu = &cpus[id];
	const char *wrong = check_registers(id);

	wrong = wrong ? wrong : check_time(cpu);
	wrong = wrong ? wrong : check_memory(cpu, id);
	if (wrong)
		cpu->wrong = wrong;
}

static void begin(uint32_t id)
{
	enable_interrupts();
	set_registers(id);
	start_timer(id);
}

/* ---- the other vCPUs ---- */

static void ap_work(uint64_t id64)
{
	uint32_t id = (uint32_t)id64;

	begin(id);
	arrived++;
	for (;;)
		work(id);
}

void ap_main(void)
{
	uint32_t regs[4];

	cpuid(0xb, 0, regs);
	__asm__ volatile("mov %0, %%rsp\n\tcall *%1"
			 : : "r"(stacks[regs[3]] + sizeof(stacks[0])), "r"(ap_work), "D"((uint64_t)regs[3]) : "memory");
}

static void start_others(void)
{
	uint32_t regs[4];

	cpuid(0xb, 1, regs);
	count = regs[1];
	for (const char *from = ap_start; from < ap_end; from++)
		((volatile char *)0x8000)[from - ap_start] = *from;
	for (uint32_t id = 1; id < count; id++) {
		wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4500);
		wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4608);
		while (arrived < id)
			__asm__ volatile("pause");
	}
}

/* The old controllers are wired to the line too. */
static void start_serial(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	write32(IOAPIC, 0x10 + 2 * SERIAL_PIN + 1);
	write32(IOAPIC + 0x10, 0);
	write32(IOAPIC, 0x10 + 2 * SERIAL_PIN);
	write32(IOAPIC + 0x10, SERIAL_VECTOR);
	outb(COM1 + 2, 1);
	outb(COM1 + 1, 1);
}

/* ---- the end ---- */

static int waits_for(volatile uint32_t *value, uint32_t least)
{
	uint64_t begun = rdtsc();

	while (*value < least && rdtsc() - begun < 60000000000ull)
		work(0);
	return *value >= least;
}

static void report(uint32_t id, const char *what)
{
	put("cpu ");
	put_hex(id, 2);
	put(": ");
	put(what);
	put(" WRONG\n");
}

static int judge(uint32_t id)
{
	struct cpu *cpu = &cpus[id];
	uint32_t calls = cpu->calls;

	if (!waits_for(&cpu->ticks, cpu->ticks + 3) && !cpu->wrong)
		cpu->wrong = "timer";
	wrmsr(MSR_X2APIC_ICR, (uint64_t)id << 32 | 0x4000 | CALL_VECTOR);
	if (!waits_for(&cpu->calls, calls + 1) && !cpu->wrong)
		cpu->wrong = "interrupt";
	if (!waits_for(&cpu->rounds, cpu->rounds + 20) && !cpu->wrong)
		cpu->wrong = "work";
	if (cpu->wrong)
		report(id, cpu->wrong);
	return !cpu->wrong;
}

void guest_main(const uint32_t *info)
{
	int good = 1;

	(void)info;
	set_gate(SERIAL_VECTOR, on_serial);
	set_gate(TIMER_VECTOR, on_timer);
	set_gate(CALL_VECTOR, on_call);
	begin(0);
	start_others();
	start_serial();
	put("ready\n");
	while (typed != 'e')
		work(0);
	for (uint32_t id = 0; id < count; id++)
		good &= judge(id);
	put(good ? "good\n" : "bad\n");
}
