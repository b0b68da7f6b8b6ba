/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tiny guests share: ports, memory-mapped registers, the serial port as their voice. They have no library and
 * little time (some hosts interpret them at a million instructions a second).
 */
#pragma once

#include <stdint.h>

#define COM1 0x3f8
#define POWER 0x600
#define PVPANIC 0x505
#define ECAM 0xe0000000ul

/* The guest's program; info is the PVH start info. When it returns the machine is switched off. */
void guest_main(const uint32_t *info);
/* What the other vCPUs run. */
void ap_main(void);

extern char ap_start[], ap_end[];

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint32_t read32(uintptr_t addr)
{
	return *(volatile uint32_t *)addr;
}

static inline void write32(uintptr_t addr, uint32_t value)
{
	*(volatile uint32_t *)addr = value;
}

static inline void put(const char *text)
{
	while (*text)
		outb(COM1, (uint8_t)*text++);
}

static inline void put_hex(uint64_t value, int digits)
{
	while (digits--)
		outb(COM1, (uint8_t)"0123456789abcdef"[value >> (4 * digits) & 15]);
}

static inline void cpuid(uint32_t leaf, uint32_t index, uint32_t regs[4])
{
	__asm__ volatile("cpuid" : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3]) : "a"(leaf), "c"(index));
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return low | (uint64_t)high << 32;
}

/* "WHAT works", or "WHAT FAILS". */
static inline void tell(const char *what, int works)
{
	put(what);
	put(works ? " works\n" : " FAILS\n");
}

/* ---- Interrupts, by the x2APIC. A handler is __attribute__((interrupt)) and ends with end_of_interrupt(). ---- */

struct frame;

void set_gate(int vector, void (*handler)(struct frame *frame));
void enable_interrupts(void);
/* Gives the function at this config space one message; 0 when it has no MSI. */
int enable_msi(uintptr_t config, uint8_t vector);

static inline void end_of_interrupt(void)
{
	wrmsr(0x80b, 0);
}

/* Waits until a handler has brought the counter to value, for a while; whether it stands there. */
static inline int reaches(volatile uint32_t *count, uint32_t value)
{
	for (uint32_t i = 0; i < 20000000 && *count < value; i++)
		__asm__ volatile("pause");
	return *count == value;
}
