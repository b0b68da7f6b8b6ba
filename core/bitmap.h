/* SPDX-License-Identifier: Apache-2.0 */
/* Bitmaps of unsigned longs, as in dirty.h. Several threads may set bits at once. */
#pragma once

#include "core/util.h"

#define BITS_PER_LONG (8 * sizeof(unsigned long))

static inline size_t bitmap_longs(size_t bits)
{
	return bits / BITS_PER_LONG + (bits % BITS_PER_LONG != 0);
}

static inline bool bitmap_test(const unsigned long *map, size_t bit)
{
	return map[bit / BITS_PER_LONG] >> (bit % BITS_PER_LONG) & 1;
}

static inline void bitmap_set(unsigned long *map, size_t bit)
{
	__atomic_fetch_or(&map[bit / BITS_PER_LONG], 1ul << (bit % BITS_PER_LONG), __ATOMIC_RELEASE);
}

/* For a bitmap that no other thread changes, as bitmap_clear_range. */
static inline void bitmap_set_range(unsigned long *map, size_t first, size_t count)
{
	for (size_t bit = first; bit < first + count; bit++)
		map[bit / BITS_PER_LONG] |= 1ul << bit % BITS_PER_LONG;
}

static inline void bitmap_clear_range(unsigned long *map, size_t first, size_t count)
{
	for (size_t bit = first; bit < first + count; bit++)
		map[bit / BITS_PER_LONG] &= ~(1ul << bit % BITS_PER_LONG);
}

/* ORs the first bits of from into to, from bit first on. For a bitmap that no other thread changes. */
static inline void bitmap_or_at(unsigned long *to, size_t first, const unsigned long *from, size_t bits)
{
	size_t shift = first % BITS_PER_LONG;

	to += first / BITS_PER_LONG;
	for (size_t at = 0; at < bits; at += BITS_PER_LONG, to++) {
		unsigned long word = *from++;

		if (bits - at < BITS_PER_LONG)
			word &= (1ul << (bits - at)) - 1;
		if (!word)
			continue;
		to[0] |= word << shift;
		if (shift && word >> (BITS_PER_LONG - shift))
			to[1] |= word >> (BITS_PER_LONG - shift);
	}
}

static inline size_t bitmap_count(const unsigned long *map, size_t longs)
{
	size_t count = 0;

	/* Most are 0, and a test is cheaper than counting. */
	for (size_t i = 0; i < longs; i++)
		if (map[i])
			count += (size_t)__builtin_popcountl(map[i]);
	return count;
}

static inline bool bitmap_is_blank(const unsigned long *map, size_t longs)
{
	unsigned long bits = 0;

	for (size_t i = 0; i < longs; i++)
		bits |= map[i];
	return !bits;
}

/*
 * Moves bits [first, first + bits) of from to the beginning of to: ORs them into to and clears them in from. A bit that
 * this process or the kernel sets meanwhile is either moved or left in from, never lost.
 */
static inline void bitmap_take(unsigned long *from, size_t first, size_t bits, unsigned long *to)
{
	size_t bit = 0;

	while (bit < bits) {
		size_t index = (first + bit) / BITS_PER_LONG, shift = (first + bit) % BITS_PER_LONG;
		size_t n = bits - bit < BITS_PER_LONG - shift ? bits - bit : BITS_PER_LONG - shift;
		unsigned long mask = (n == BITS_PER_LONG ? ~0ul : (1ul << n) - 1) << shift, set;

		/* Most are clear, and a load costs less than an exchange. */
		if (!(__atomic_load_n(&from[index], __ATOMIC_RELAXED) & mask)) {
			bit += n;
			while (bits - bit >= BITS_PER_LONG && !__atomic_load_n(&from[++index], __ATOMIC_RELAXED))
				bit += BITS_PER_LONG;
			continue;
		}
		set = (__atomic_fetch_and(&from[index], ~mask, __ATOMIC_ACQ_REL) & mask) >> shift;
		__atomic_fetch_or(&to[bit / BITS_PER_LONG], set << bit % BITS_PER_LONG, __ATOMIC_RELEASE);
		if (bit % BITS_PER_LONG + n > BITS_PER_LONG)
			__atomic_fetch_or(&to[bit / BITS_PER_LONG + 1], set >> (BITS_PER_LONG - bit % BITS_PER_LONG),
					  __ATOMIC_RELEASE);
		bit += n;
	}
}
