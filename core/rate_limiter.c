/* SPDX-License-Identifier: Apache-2.0 */
/* See rate_limiter.h. */
#include "core/rate_limiter.h"

#define LONGEST_WAIT UINT64_C(3600000000000)

static const struct state_field fields[] = {
	STATE_UINT(struct rate_limiter_state, bytes.tokens, 1),
	STATE_UINT(struct rate_limiter_state, bytes.burst, 1),
	STATE_UINT(struct rate_limiter_state, ops.tokens, 1),
	STATE_UINT(struct rate_limiter_state, ops.burst, 1),
};
const struct state_table rate_limiter_state = {
	.name = "limit", .version = 1, .oldest = 1, STATE_FIELDS(fields),
};

void rate_limiter_init(struct rate_limiter *limiter)
{
	*limiter = (struct rate_limiter){.paused = false};
	pthread_mutex_init(&limiter->lock, NULL);
}

void rate_limiter_done(struct rate_limiter *limiter)
{
	pthread_mutex_destroy(&limiter->lock);
}

void rate_limiter_set(struct rate_limiter *limiter, const struct token_bucket_limit *bytes,
		      const struct token_bucket_limit *ops, uint64_t now)
{
	pthread_mutex_lock(&limiter->lock);
	if (bytes)
		token_bucket_init(&limiter->bytes, bytes, now);
	if (ops)
		token_bucket_init(&limiter->ops, ops, now);
	atomic_store(&limiter->on, token_bucket_limit_is_set(&limiter->bytes.limit) ||
				   token_bucket_limit_is_set(&limiter->ops.limit));
	pthread_mutex_unlock(&limiter->lock);
}

uint64_t rate_limiter_wait_at(struct rate_limiter *limiter, uint64_t now)
{
	uint64_t bytes, ops;

	pthread_mutex_lock(&limiter->lock);
	bytes = token_bucket_wait(&limiter->bytes, now);
	ops = token_bucket_wait(&limiter->ops, now);
	pthread_mutex_unlock(&limiter->lock);
	if (bytes || ops)
		atomic_fetch_add_explicit(&limiter->waits, 1, memory_order_relaxed);
	return MIN(MAX(bytes, ops), LONGEST_WAIT);
}

void rate_limiter_charge_at(struct rate_limiter *limiter, uint64_t bytes, uint64_t ops, uint64_t now)
{
	pthread_mutex_lock(&limiter->lock);
	token_bucket_take(&limiter->bytes, bytes, now);
	token_bucket_take(&limiter->ops, ops, now);
	pthread_mutex_unlock(&limiter->lock);
}

/* ---- pauses, saved state ---- */

void rate_limiter_pause(struct rate_limiter *limiter, uint64_t now)
{
	pthread_mutex_lock(&limiter->lock);
	if (!limiter->paused) {
		token_bucket_level(&limiter->bytes, now);
		token_bucket_level(&limiter->ops, now);
	}
	limiter->paused = true;
	pthread_mutex_unlock(&limiter->lock);
}

void rate_limiter_resume(struct rate_limiter *limiter, uint64_t now)
{
	pthread_mutex_lock(&limiter->lock);
	if (limiter->paused) {
		token_bucket_skip(&limiter->bytes, now);
		token_bucket_skip(&limiter->ops, now);
	}
	limiter->paused = false;
	pthread_mutex_unlock(&limiter->lock);
}

void rate_limiter_save(struct rate_limiter *limiter, struct rate_limiter_state *ret, uint64_t now)
{
	pthread_mutex_lock(&limiter->lock);
	token_bucket_save(&limiter->bytes, &ret->bytes, limiter->paused ? 0 : now);
	token_bucket_save(&limiter->ops, &ret->ops, limiter->paused ? 0 : now);
	pthread_mutex_unlock(&limiter->lock);
}

void rate_limiter_load(struct rate_limiter *limiter, const struct rate_limiter_state *state, uint64_t now)
{
	pthread_mutex_lock(&limiter->lock);
	token_bucket_load(&limiter->bytes, &state->bytes, now);
	token_bucket_load(&limiter->ops, &state->ops, now);
	limiter->paused = true;
	pthread_mutex_unlock(&limiter->lock);
}
