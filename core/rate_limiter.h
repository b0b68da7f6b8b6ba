/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device may do in a time: bytes and operations, a token bucket for each. All its threads share one limiter; each
 * asks it before it begins something, and if it has to wait, sleeps with its other events until then and asks again.
 * Without a limit that costs one load.
 *
 * Any thread may call. now is monotonic_ns(). The owner wakes its threads after rate_limiter_set.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "core/monotonic.h"
#include "core/state.h"
#include "core/token_bucket.h"

/* Saved state: what both buckets have. */
struct rate_limiter_state {
	struct token_bucket_fill bytes, ops;
};

struct rate_limiter {
	atomic_bool on;        /* either bucket has a limit */
	atomic_ullong waits;   /* how often something had to wait */
	pthread_mutex_t lock;  /* all below */
	bool paused;
	struct token_bucket bytes, ops;
};

/* The fields of struct rate_limiter_state, to be embedded in a device's state (STATE_STRUCT). */
extern const struct state_table rate_limiter_state;
/* That of a limiter that nobody has used, for a record that does not have it. */
#define RATE_LIMITER_FULL {.bytes = {INT64_MAX, UINT64_MAX}, .ops = {INT64_MAX, UINT64_MAX}}

/* Without a limit. */
void rate_limiter_init(struct rate_limiter *limiter);
void rate_limiter_done(struct rate_limiter *limiter);

/* Sets one or both limits; NULL: it stays, with what its bucket has. A bucket with a new limit is full. */
void rate_limiter_set(struct rate_limiter *limiter, const struct token_bucket_limit *bytes,
		      const struct token_bucket_limit *ops, uint64_t now);

/* In how many ns something may begin, at most an hour; 0: now. */
uint64_t rate_limiter_wait_at(struct rate_limiter *limiter, uint64_t now);
/* So many bytes and operations have begun, whether the buckets have them or not. */
void rate_limiter_charge_at(struct rate_limiter *limiter, uint64_t bytes, uint64_t ops, uint64_t now);

static inline bool rate_limiter_on(const struct rate_limiter *limiter)
{
	return atomic_load_explicit(&limiter->on, memory_order_relaxed);
}

static inline uint64_t rate_limiter_wait(struct rate_limiter *limiter)
{
	return rate_limiter_on(limiter) ? rate_limiter_wait_at(limiter, monotonic_ns()) : 0;
}

static inline void rate_limiter_charge(struct rate_limiter *limiter, uint64_t bytes, uint64_t ops)
{
	if (rate_limiter_on(limiter))
		rate_limiter_charge_at(limiter, bytes, ops, monotonic_ns());
}

/* While the device is paused, time does not count. */
void rate_limiter_pause(struct rate_limiter *limiter, uint64_t now);
void rate_limiter_resume(struct rate_limiter *limiter, uint64_t now);

void rate_limiter_save(struct rate_limiter *limiter, struct rate_limiter_state *ret, uint64_t now);
void rate_limiter_load(struct rate_limiter *limiter, const struct rate_limiter_state *state, uint64_t now);
