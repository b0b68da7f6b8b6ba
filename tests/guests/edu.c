/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives QEMU's edu device (1234:11e8, QEMU docs/specs/edu.rst), passed through: registers, DMA both ways, interrupts
 * by the line (raised, ended, raised again) and by MSI. A line of output for each that works.
 */
#include "tests/guests/guest.h"

#define IOAPIC 0xfec00000ul
#define LINE_VECTOR 0x40
#define MSI_VECTOR 0x41

#define EDU_LIVE 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_RAISE 0x60
#define EDU_IRQ_ACK 0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98
#define EDU_BUFFER 0x40000ul

static volatile uint32_t line_count, msi_count;
static uintptr_t edu;

__attribute__((interrupt)) static void on_line(struct frame *frame)
{
	(void)frame;
	line_count++;
	write32(edu + EDU_IRQ_ACK, read32(edu + EDU_IRQ_STATUS));
	end_of_interrupt();
}

__attribute__((interrupt)) static void on_msi(struct frame *frame)
{
	(void)frame;
	msi_count++;
	write32(edu + EDU_IRQ_ACK, read32(edu + EDU_IRQ_STATUS));
	end_of_interrupt();
}

static void dma(uint64_t from, uint64_t to, uint32_t command)
{
	*(volatile uint64_t *)(edu + EDU_DMA_SRC) = from;
	*(volatile uint64_t *)(edu + EDU_DMA_DST) = to;
	*(volatile uint64_t *)(edu + EDU_DMA_COUNT) = 4096;
	*(volatile uint64_t *)(edu + EDU_DMA_CMD) = command;
	while (*(volatile uint64_t *)(edu + EDU_DMA_CMD) & 1)
		__asm__ volatile("pause");
}

static void try_dma(void)
{
	volatile uint32_t *out = (volatile uint32_t *)0x200000, *in = (volatile uint32_t *)0x300000;
	int same = 1;

	for (uint32_t i = 0; i < 1024; i++)
		out[i] = i * 2654435761u;
	dma((uintptr_t)out, EDU_BUFFER, 1);
	dma(EDU_BUFFER, (uintptr_t)in, 3);
	for (uint32_t i = 0; i < 1024; i++)
		same &= in[i] == out[i];
	tell("dma", same);
}

static void try_line(uintptr_t config, uint32_t device)
{
	uint32_t pin = read32(config + 0x3c) >> 8 & 0xff, gsi = 16 + (device + pin - 1) % 4;

	write32(IOAPIC, 0x11 + 2 * gsi);
	write32(IOAPIC + 0x10, 0);
	write32(IOAPIC, 0x10 + 2 * gsi);
	write32(IOAPIC + 0x10, LINE_VECTOR | 1 << 15);
	for (uint32_t i = 1; i <= 3; i++) {
		write32(edu + EDU_IRQ_RAISE, i);
		if (!reaches(&line_count, i))
			break;
	}
	tell("line", line_count == 3);
}

static void try_msi(uintptr_t config)
{
	if (!enable_msi(config, MSI_VECTOR)) {
		tell("msi", 0);
		return;
	}
	for (uint32_t i = 1; i <= 3; i++) {
		write32(edu + EDU_IRQ_RAISE, i);
		if (!reaches(&msi_count, i))
			break;
	}
	tell("msi", msi_count == 3 && line_count == 3);
}

void guest_main(const uint32_t *info)
{
	uintptr_t config = ECAM;
	uint32_t device = 0;

	while (device < 32 && read32(config) != 0x11e81234)
		config = ECAM + ((uintptr_t)++device << 15);
	if (device == 32) {
		put("no edu\n");
		return;
	}
	edu = read32(config + 0x10) & ~15u;
	write32(config + 4, 6);
	set_gate(LINE_VECTOR, on_line);
	set_gate(MSI_VECTOR, on_msi);
	enable_interrupts();
	write32(edu + EDU_LIVE, 0x12345678);
	tell("registers", read32(edu + EDU_LIVE) == ~0x12345678u);
	write32(edu + EDU_FACTORIAL, 10);
	while (read32(edu + EDU_STATUS) & 1)
		__asm__ volatile("pause");
	tell("factorial", read32(edu + EDU_FACTORIAL) == 3628800);
	try_dma();
	try_line(config, device);
	try_msi(config);
}
