/* SPDX-License-Identifier: Apache-2.0 */
/* core/token_bucket.c: the rate is exact, a burst comes once, and no number breaks it. The clock is a variable. */
#include "core/token_bucket.h"
#include "tests/unit/test.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

static struct token_bucket bucket;
static uint64_t now;

static void make(uint64_t size, uint64_t burst, uint64_t refill_ns)
{
	const struct token_bucket_limit limit = {size, burst, refill_ns};

	now = 77 * SECOND;
	token_bucket_init(&bucket, &limit, now);
}

/* Takes pieces as soon as may be, until end; returns how many tokens that were. */
static uint64_t spend(uint64_t piece, uint64_t end)
{
	uint64_t sum = 0, wait;

	for (;;) {
		wait = token_bucket_wait(&bucket, now);
		if (wait > end - now)
			break;
		now += wait;
		CHECK(token_bucket_try(&bucket, piece, now));
		sum += piece;
	}
	now = end;
	return sum;
}

static void a_zeroed_bucket_has_no_limit(void)
{
	struct token_bucket none = {0};

	CHECK(token_bucket_try(&none, UINT64_MAX, 0));
	token_bucket_take(&none, UINT64_MAX, 5);
	CHECK_EQ(token_bucket_wait(&none, 5), 0);
	make(100, 7, 0);
	CHECK(token_bucket_try(&bucket, 1000, now) && token_bucket_try(&bucket, 1000, now));
}

static void it_begins_full(void)
{
	make(3, 0, SECOND);
	for (unsigned int i = 0; i < 3; i++)
		CHECK(token_bucket_try(&bucket, 1, now));
	CHECK(!token_bucket_try(&bucket, 1, now));
}

static void the_wait_is_to_the_nanosecond(void)
{
	make(3, 0, SECOND);
	token_bucket_take(&bucket, 3, now);
	CHECK_EQ(token_bucket_wait(&bucket, now), 333333334);
	CHECK(!token_bucket_try(&bucket, 1, now + 333333333));
	CHECK(token_bucket_try(&bucket, 1, now + 333333334));
}

static void over_ten_seconds_the_rate_is_exact(void)
{
	static const uint64_t pieces[] = {1, 512, 4096, 65536, 10000000};

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		uint64_t sum;

		make(1000000, 0, 100 * MS);
		sum = spend(pieces[i], now + 10 * SECOND);
		CHECK(sum >= 101000000 && sum < 101000000 + pieces[i] + 1);
	}
}

/* The parts of tokens are not lost, however often it is asked. */
static void looking_often_loses_nothing(void)
{
	uint64_t taken = 0;

	make(1000, 0, SECOND);
	token_bucket_take(&bucket, 1000, now);
	for (uint64_t end = now + 2 * SECOND; now < end; now += 9999)
		taken += token_bucket_try(&bucket, 1, now);
	CHECK(taken >= 1999 && taken <= 2001);
}

static void a_burst_comes_once_and_first(void)
{
	make(100, 5000, SECOND);
	CHECK_EQ(spend(1, now), 5100);
	CHECK_EQ(spend(1, now + 10 * SECOND), 1000);
	now += 3600 * SECOND;
	CHECK_EQ(spend(1, now), 100);
}

static void an_idle_bucket_gets_no_more_than_full(void)
{
	make(100, 0, SECOND);
	token_bucket_take(&bucket, 100, now);
	now += 86400 * SECOND;
	CHECK_EQ(spend(1, now), 100);
}

static void what_is_larger_than_the_bucket_is_paid_later(void)
{
	make(100, 0, SECOND);
	CHECK(token_bucket_try(&bucket, 1000, now));
	CHECK_EQ(token_bucket_wait(&bucket, now), 9 * SECOND + 10 * MS);
	CHECK(!token_bucket_try(&bucket, 1, now + 9 * SECOND));
	CHECK(token_bucket_try(&bucket, 1, now + 9 * SECOND + 10 * MS));
}

static void a_clock_that_goes_back_gives_nothing(void)
{
	make(10, 0, SECOND);
	token_bucket_take(&bucket, 10, now);
	CHECK(!token_bucket_try(&bucket, 1, now - SECOND));
	CHECK(!token_bucket_try(&bucket, 1, now + 99 * MS));
	CHECK(token_bucket_try(&bucket, 1, now + 100 * MS));
}

static void the_fill_is_kept_over_a_pause(void)
{
	struct token_bucket_fill fill;

	make(100, 50, SECOND);
	token_bucket_take(&bucket, 120, now);
	token_bucket_save(&bucket, &fill, now);
	CHECK_EQ(fill.tokens, 30);
	CHECK_EQ(fill.burst, 0);
	token_bucket_init(&bucket, &(struct token_bucket_limit){100, 50, SECOND}, now);
	now += 3600 * SECOND;
	token_bucket_load(&bucket, &fill, now);
	CHECK_EQ(spend(1, now), 30);
}

static void a_bucket_without_a_limit_leaves_a_full_one(void)
{
	struct token_bucket none = {0};
	struct token_bucket_fill fill;

	token_bucket_save(&none, &fill, 0);
	make(100, 50, SECOND);
	token_bucket_load(&bucket, &fill, now);
	CHECK_EQ(spend(1, now), 100); /* and no burst */
}

static void the_limit_bounds_what_is_loaded(void)
{
	const struct token_bucket_fill much = {INT64_MAX, UINT64_MAX}, little = {INT64_MIN, 0};

	make(100, 50, SECOND);
	token_bucket_load(&bucket, &much, now);
	CHECK_EQ(spend(1, now), 150);
	token_bucket_load(&bucket, &little, now);
	CHECK(token_bucket_wait(&bucket, now) > 0);
	token_bucket_take(&bucket, UINT64_MAX, now);
	CHECK(token_bucket_wait(&bucket, now) > 0);
}

static void no_number_wraps(void)
{
	static const uint64_t numbers[] = {1, 2, 999, INT64_MAX, TOKEN_BUCKET_MAX, UINT64_MAX - 1, UINT64_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		for (size_t j = 0; j < ARRAY_SIZE(numbers); j++)
			for (size_t k = 0; k < ARRAY_SIZE(numbers); k++) {
				uint64_t wait;

				make(numbers[i], numbers[j], numbers[k]);
				CHECK(token_bucket_try(&bucket, numbers[j], now));
				token_bucket_take(&bucket, numbers[k], now);
				token_bucket_take(&bucket, UINT64_MAX, now);
				token_bucket_take(&bucket, UINT64_MAX, now);
				wait = token_bucket_wait(&bucket, now);
				CHECK(wait > 0);
				CHECK(token_bucket_wait(&bucket, UINT64_MAX - 1) <= wait);
			}
	make(UINT64_MAX, 0, 1);
	token_bucket_take(&bucket, TOKEN_BUCKET_MAX, now);
	CHECK_EQ(token_bucket_wait(&bucket, now), 1);
	make(1, 0, UINT64_MAX);
	token_bucket_take(&bucket, UINT64_MAX, now);
	CHECK_EQ(token_bucket_wait(&bucket, now), UINT64_MAX);
}

TEST_MAIN(TEST(a_zeroed_bucket_has_no_limit), TEST(it_begins_full), TEST(the_wait_is_to_the_nanosecond),
	  TEST(over_ten_seconds_the_rate_is_exact), TEST(looking_often_loses_nothing), TEST(a_burst_comes_once_and_first),
	  TEST(an_idle_bucket_gets_no_more_than_full), TEST(what_is_larger_than_the_bucket_is_paid_later),
	  TEST(a_clock_that_goes_back_gives_nothing), TEST(the_fill_is_kept_over_a_pause),
	  TEST(a_bucket_without_a_limit_leaves_a_full_one), TEST(the_limit_bounds_what_is_loaded), TEST(no_number_wraps))
