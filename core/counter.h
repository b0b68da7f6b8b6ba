/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of what happens, for metrics: each has one thread that adds to it, without a lock, a barrier or a shared cache
 * line, and any thread reads it. A reader sees each counter as it was a moment ago, and two of them at different moments.
 */
#pragma once

#include "core/util.h"

/* Adds n; only on the thread that owns the counter, or under the lock that all who add take. */
static inline void counter_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t counter_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* How long things took: bucket i counts those below 2^i microseconds that no lower one has, the last one all others. */
#define COUNTER_BUCKETS 25u /* the last bound is 8.4 s */

struct counter_histogram {
	uint64_t ns; /* the sum */
	uint64_t buckets[COUNTER_BUCKETS];
};

static inline void counter_histogram_add(struct counter_histogram *histogram, uint64_t ns)
{
	uint64_t us = ns / 1000;
	unsigned int bucket = us ? 64 - (unsigned int)__builtin_clzll(us) : 0;

	counter_add(&histogram->ns, ns);
	counter_add(&histogram->buckets[MIN(bucket, COUNTER_BUCKETS - 1)], 1);
}

/* Adds what from has to to, which nobody else uses. */
static inline void counter_histogram_sum(struct counter_histogram *to, const struct counter_histogram *from)
{
	to->ns += counter_read(&from->ns);
	for (unsigned int i = 0; i < COUNTER_BUCKETS; i++)
		to->buckets[i] += counter_read(&from->buckets[i]);
}

/* Zeroed memory for count structs of counters, each with cache lines of its own: size is a multiple of them. */
#define COUNTER_LINE 64u
static inline void *counter_alloc(size_t count, size_t size)
{
	void *counters = aligned_alloc(COUNTER_LINE, count * size);

	return counters ? memset(counters, 0, count * size) : NULL;
}
