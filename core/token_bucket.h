/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A token bucket: how much may be done in a time. It begins full, with size tokens, and refills evenly, size tokens in
 * refill_ns; a burst comes on top once, and is used first.
 *
 * What is taken may be larger than the bucket: something may be taken whenever the bucket is not empty, and it may then
 * owe tokens, which the refill pays first. In any span of time t, no more than size + burst + t * size / refill_ns and
 * the last one is taken, and over a long time exactly that rate.
 *
 * All calls have the time, in ns of a monotonic clock; a time before that of the last call counts as that. Nothing
 * fails, allocates or locks: not for several threads at a time.
 */
#pragma once

#include "core/util.h"

/* The largest size and burst; larger ones count as this. */
#define TOKEN_BUCKET_MAX (UINT64_C(1) << 62)

/* size or refill_ns 0: no limit. */
struct token_bucket_limit {
	uint64_t size;
	uint64_t burst;
	uint64_t refill_ns;
};

struct token_bucket {
	struct token_bucket_limit limit;
	int64_t tokens; /* below 0: owed */
	uint64_t burst; /* that is left */
	uint64_t part;  /* of the next token, in parts of limit.refill_ns */
	uint64_t at;    /* when tokens was true */
};

/* What a bucket has, to be kept while time does not count for it. One without a limit has all. */
struct token_bucket_fill {
	int64_t tokens;
	uint64_t burst;
};

static inline bool token_bucket_limit_is_set(const struct token_bucket_limit *limit)
{
	return limit->size && limit->refill_ns;
}

/* A full bucket. The zeroed struct has no limit. */
void token_bucket_init(struct token_bucket *bucket, const struct token_bucket_limit *limit, uint64_t now);

/* In how many ns something may be taken; 0: now. */
uint64_t token_bucket_wait(struct token_bucket *bucket, uint64_t now);
/* How many tokens it has, 0 if none; UINT64_MAX without a limit. */
uint64_t token_bucket_level(struct token_bucket *bucket, uint64_t now);
/* Takes tokens, whether the bucket has them or not. */
void token_bucket_take(struct token_bucket *bucket, uint64_t tokens, uint64_t now);
/* Takes tokens if something may be taken, or returns false. */
bool token_bucket_try(struct token_bucket *bucket, uint64_t tokens, uint64_t now);

/* The time until now does not count, from the last call on. */
void token_bucket_skip(struct token_bucket *bucket, uint64_t now);

void token_bucket_save(struct token_bucket *bucket, struct token_bucket_fill *ret, uint64_t now);
/* Sets what the bucket has, at most what its limit allows. fill may be hostile. */
void token_bucket_load(struct token_bucket *bucket, const struct token_bucket_fill *fill, uint64_t now);
