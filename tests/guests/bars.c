/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touches the registers of a passed-through NVMe while it does not respond (in D3hot, with memory decoding off) and
 * after it has been reset. Registers that do not respond read as ones. A line of output for each that works.
 */
#include "tests/guests/guest.h"

#define NVME_CLASS 0x010802u
#define VERSION 0x8 /* a register that is never 0 or ones */
#define COMMAND 0x4
#define DECODE 0x6u         /* memory and bus mastering */
#define NO_DECODE 0x404u    /* bus mastering, and INTx off, which was on */
#define PM_CONTROL 0x4
#define EXPRESS_CONTROL 0x8
#define FUNCTION_RESET 0x8000u

static uintptr_t config, bar;

static uintptr_t find_capability(uint8_t id)
{
	uintptr_t at = read32(config + 0x34) & 0xfc;

	while (at && (read32(config + at) & 0xff) != id)
		at = read32(config + at) >> 8 & 0xfc;
	return config + at;
}

static void write16(uintptr_t addr, uint16_t value)
{
	*(volatile uint16_t *)addr = value;
}

static int absent(void)
{
	write32(bar + VERSION, 0);
	return read32(bar + VERSION) == 0xffffffff;
}

void guest_main(const uint32_t *info)
{
	uintptr_t power, express;
	uint32_t version;

	for (config = ECAM; config < ECAM + (32ul << 15) && read32(config + 8) >> 8 != NVME_CLASS; config += 1ul << 15)
		;
	bar = read32(config + 0x10) & ~15u;
	power = find_capability(0x01) + PM_CONTROL;
	express = find_capability(0x10) + EXPRESS_CONTROL;
	write16(config + COMMAND, DECODE);
	version = read32(bar + VERSION);
	tell("decoding", version && version != 0xffffffff);
	write16(power, 3);
	tell("d3hot", absent());
	write16(power, 0);
	tell("d0", read32(bar + VERSION) == version);
	write16(config + COMMAND, NO_DECODE);
	tell("no decoding", absent());
	write16(config + COMMAND, DECODE);
	tell("decoding again", read32(bar + VERSION) == version);
	write16(express, FUNCTION_RESET);
	tell("function reset", read32(bar + VERSION) == version);
	write16(power, 3);
	write16(express, FUNCTION_RESET);
	tell("reset in d3hot", read32(bar + VERSION) == version);
}
