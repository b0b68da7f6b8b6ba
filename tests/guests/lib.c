/* SPDX-License-Identifier: Apache-2.0 */
/* What the compiler may call, interrupts, and the other vCPUs' program where a guest has none. */
#include "tests/guests/guest.h"

void *memset(void *to, int value, unsigned long len);
void *memcpy(void *to, const void *from, unsigned long len);

void *memset(void *to, int value, unsigned long len)
{
	for (unsigned long i = 0; i < len; i++)
		((volatile char *)to)[i] = (char)value;
	return to;
}

void *memcpy(void *to, const void *from, unsigned long len)
{
	for (unsigned long i = 0; i < len; i++)
		((volatile char *)to)[i] = ((const char *)from)[i];
	return to;
}

__attribute__((weak)) void ap_main(void)
{
}

struct gate {
	uint16_t low, selector;
	uint8_t ist, type;
	uint16_t middle;
	uint32_t high, zero;
};

static struct gate idt[256] __attribute__((aligned(16)));

void set_gate(int vector, void (*handler)(struct frame *frame))
{
	uintptr_t at = (uintptr_t)handler;

	idt[vector] = (struct gate){(uint16_t)at, 8, 0, 0x8e, (uint16_t)(at >> 16), (uint32_t)(at >> 32), 0};
}

void enable_interrupts(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};

	__asm__ volatile("lidt %0" : : "m"(pointer));
	wrmsr(0x1b, rdmsr(0x1b) | 3 << 10);
	wrmsr(0x80f, 0x1ff);
	__asm__ volatile("sti");
}

int enable_msi(uintptr_t config, uint8_t vector)
{
	uint32_t cap = read32(config + 0x34) & 0xfc;

	while (cap && (read32(config + cap) & 0xff) != 5)
		cap = read32(config + cap) >> 8 & 0xfc;
	if (!cap)
		return 0;
	write32(config + cap + 4, 0xfee00000);
	write32(config + cap + 8, 0);
	write32(config + cap + 12, vector);
	write32(config + cap, read32(config + cap) | 1 << 16);
	return 1;
}
