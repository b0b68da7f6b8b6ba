/* SPDX-License-Identifier: Apache-2.0 */
/* See token_bucket.h. */
#include "core/token_bucket.h"

#define FULL INT64_MAX
#define MAX_OWED ((int64_t)TOKEN_BUCKET_MAX) /* so that no sum here wraps */

void token_bucket_init(struct token_bucket *bucket, const struct token_bucket_limit *limit, uint64_t now)
{
	*bucket = (struct token_bucket){
		.limit = {MIN(limit->size, TOKEN_BUCKET_MAX), MIN(limit->burst, TOKEN_BUCKET_MAX), limit->refill_ns},
		.at = now,
	};
	bucket->tokens = (int64_t)bucket->limit.size;
	bucket->burst = bucket->limit.burst;
}

/* Adds what has come since the last call, exactly: what is not yet a whole token is kept in part. */
static void token_bucket_refill(struct token_bucket *bucket, uint64_t now)
{
	uint64_t size = bucket->limit.size, refill_ns = bucket->limit.refill_ns, span = now - bucket->at;
	uint64_t room = size - (uint64_t)bucket->tokens; /* also if tokens is below 0 */
	unsigned __int128 parts;

	if (now <= bucket->at)
		return;
	bucket->at = now;
	parts = (unsigned __int128)span * size + bucket->part;
	if (parts / refill_ns >= room) {
		bucket->tokens = (int64_t)size;
		bucket->part = 0;
	} else {
		bucket->tokens += (int64_t)(uint64_t)(parts / refill_ns);
		bucket->part = (uint64_t)(parts % refill_ns);
	}
}

uint64_t token_bucket_wait(struct token_bucket *bucket, uint64_t now)
{
	unsigned __int128 parts, wait;

	if (!token_bucket_limit_is_set(&bucket->limit))
		return 0;
	token_bucket_refill(bucket, now);
	if (bucket->tokens > 0 || bucket->burst)
		return 0;
	parts = (unsigned __int128)(uint64_t)(1 - bucket->tokens) * bucket->limit.refill_ns - bucket->part;
	wait = (parts + bucket->limit.size - 1) / bucket->limit.size;
	return wait > UINT64_MAX ? UINT64_MAX : (uint64_t)wait;
}

uint64_t token_bucket_level(struct token_bucket *bucket, uint64_t now)
{
	if (!token_bucket_limit_is_set(&bucket->limit))
		return UINT64_MAX;
	token_bucket_refill(bucket, now);
	return (uint64_t)MAX(bucket->tokens, 0) + bucket->burst;
}

void token_bucket_take(struct token_bucket *bucket, uint64_t tokens, uint64_t now)
{
	uint64_t once = MIN(tokens, bucket->burst);

	if (!token_bucket_limit_is_set(&bucket->limit))
		return;
	token_bucket_refill(bucket, now);
	bucket->burst -= once;
	tokens = MIN(tokens - once, TOKEN_BUCKET_MAX);
	bucket->tokens = MAX(bucket->tokens - (int64_t)tokens, -MAX_OWED);
}

bool token_bucket_try(struct token_bucket *bucket, uint64_t tokens, uint64_t now)
{
	if (token_bucket_wait(bucket, now))
		return false;
	token_bucket_take(bucket, tokens, now);
	return true;
}

void token_bucket_skip(struct token_bucket *bucket, uint64_t now)
{
	bucket->at = MAX(bucket->at, now);
}

void token_bucket_save(struct token_bucket *bucket, struct token_bucket_fill *ret, uint64_t now)
{
	bool limited = token_bucket_limit_is_set(&bucket->limit);

	if (limited)
		token_bucket_refill(bucket, now);
	*ret = (struct token_bucket_fill){limited ? bucket->tokens : FULL, limited ? bucket->burst : 0};
}

void token_bucket_load(struct token_bucket *bucket, const struct token_bucket_fill *fill, uint64_t now)
{
	bucket->tokens = MAX(MIN(fill->tokens, (int64_t)bucket->limit.size), -MAX_OWED);
	bucket->burst = MIN(fill->burst, bucket->limit.burst);
	bucket->part = 0;
	bucket->at = now;
}
