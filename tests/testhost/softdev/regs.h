/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * softdev as its driver sees it: identity, the registers in BAR0, and what its engine writes. For the module and for
 * the programs that drive the device, in the test host and in guests; plain C, little-endian.
 *
 * A job moves [ADDRESS, ADDRESS + LENGTH) PASSES times (0: until stopped), at most a page at a time, with a pause of
 * INTERVAL microseconds after each. SOFTDEV_PATTERN writes bytes that follow from SEED, the number of the pass and
 * the place in the range; SOFTDEV_LOAD reads memory into the device's store, SOFTDEV_STORE writes the store to memory,
 * both from the store's start and around its end. POSITION and PASS say how far it has come, so that at any moment the
 * bytes below POSITION are those of PASS and the others those of the pass before. The parameters take no write while
 * a job runs.
 */
#ifndef SOFTDEV_REGS_H
#define SOFTDEV_REGS_H

#define SOFTDEV_VENDOR 0x6d76
#define SOFTDEV_DEVICE 0x5d01
#define SOFTDEV_BAR_SIZE 4096
#define SOFTDEV_MSI_CAP 0x40

/* Registers of 8 bytes, by number; any aligned part of one can be accessed. */
enum softdev_reg {
	SOFTDEV_REG_MAGIC,    /* SOFTDEV_MAGIC */
	SOFTDEV_REG_ADDRESS,  /* the job: bus address */
	SOFTDEV_REG_LENGTH,   /* in bytes */
	SOFTDEV_REG_SEED,
	SOFTDEV_REG_PASSES,
	SOFTDEV_REG_INTERVAL, /* microseconds; may be written at any time */
	SOFTDEV_REG_COMMAND,  /* write: enum softdev_command, perhaps with SOFTDEV_INTERRUPT; reads as the last one */
	SOFTDEV_REG_STATUS,   /* enum softdev_status; what follows is read-only as well */
	SOFTDEV_REG_PASS,     /* passes done */
	SOFTDEV_REG_POSITION, /* bytes done of this pass */
	SOFTDEV_REG_MOVED,    /* bytes since the reset */
	SOFTDEV_REG_FAULT,    /* the address that could not be accessed, with SOFTDEV_FAILED */
	SOFTDEV_REG_STORE,    /* bytes of the store */
	SOFTDEV_REGS,
};

#define SOFTDEV_MAGIC 0x31766564746f7368ull

enum softdev_command { SOFTDEV_STOP, SOFTDEV_PATTERN, SOFTDEV_LOAD, SOFTDEV_STORE };
#define SOFTDEV_INTERRUPT 0x100 /* a message (MSI) when the job ends by itself */

enum softdev_status { SOFTDEV_IDLE, SOFTDEV_BUSY, SOFTDEV_DONE, SOFTDEV_FAILED };

/* Eight bytes of the pattern: those at offset 8 * word of the range. */
static inline unsigned long long softdev_word(unsigned long long seed, unsigned long long pass, unsigned long long word)
{
	unsigned long long x = seed + pass * 0xd1342543de82ef95ull + word * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* The bytes of the pattern at [offset, offset + len) of the range. */
static inline void softdev_pattern(unsigned long long seed, unsigned long long pass, unsigned long long offset,
				   unsigned char *out, unsigned long len)
{
	unsigned long long word = softdev_word(seed, pass, offset / 8);

	for (; len; len--, offset++) {
		if (offset % 8 == 0)
			word = softdev_word(seed, pass, offset / 8);
		*out++ = (unsigned char)(word >> 8 * (offset % 8));
	}
}

#endif
