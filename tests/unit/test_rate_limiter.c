/* SPDX-License-Identifier: Apache-2.0 */
/* core/rate_limiter.c: both buckets hold, a pause stops their time, and their fill goes along. The clock is a variable. */
#include "core/rate_limiter.h"
#include "tests/unit/test.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

static const struct token_bucket_limit none;
static struct rate_limiter limiter;
static uint64_t now;

static void make(const struct token_bucket_limit *bytes, const struct token_bucket_limit *ops)
{
	rate_limiter_init(&limiter);
	now = 1000 * SECOND;
	rate_limiter_set(&limiter, bytes, ops, now);
}

/* Operations of that many bytes until end; returns how many. */
static unsigned int work(uint64_t bytes, uint64_t end)
{
	unsigned int count = 0;

	for (;;) {
		uint64_t wait = rate_limiter_wait_at(&limiter, now);

		if (wait > end - now)
			break;
		now += wait;
		rate_limiter_charge_at(&limiter, bytes, 1, now);
		count++;
	}
	now = end;
	return count;
}

static void without_a_limit_it_is_off(void)
{
	make(&none, &none);
	CHECK(!rate_limiter_on(&limiter));
	CHECK_EQ(rate_limiter_wait(&limiter), 0);
	rate_limiter_charge(&limiter, UINT64_MAX, 1);
	CHECK_EQ(rate_limiter_wait_at(&limiter, now), 0);
	CHECK_EQ(limiter.waits, 0);
	rate_limiter_done(&limiter);
}

static void the_tighter_limit_holds(void)
{
	unsigned int count;

	make(&(struct token_bucket_limit){100000, 0, 100 * MS}, &(struct token_bucket_limit){10, 0, 100 * MS});
	CHECK_EQ(work(1000, now), 10);
	CHECK_EQ(work(1000, now + 10 * SECOND), 1000); /* 100 operations a second */
	CHECK_EQ(work(100000, now), 0);
	count = work(100000, now + 10 * SECOND); /* 1 MB a second */
	CHECK(count == 100 || count == 101);
	CHECK(limiter.waits > 0);
	rate_limiter_done(&limiter);
}

static void one_limit_is_changed_and_the_other_keeps_its_fill(void)
{
	make(&(struct token_bucket_limit){1000, 0, SECOND}, &(struct token_bucket_limit){5, 0, SECOND});
	CHECK_EQ(work(100, now), 5);
	rate_limiter_set(&limiter, NULL, &(struct token_bucket_limit){100, 7, SECOND}, now);
	CHECK_EQ(work(100, now), 5); /* the 500 bytes that were left */
	rate_limiter_set(&limiter, &none, NULL, now);
	CHECK_EQ(work(100, now), 102);
	rate_limiter_set(&limiter, NULL, &none, now);
	CHECK(!rate_limiter_on(&limiter));
	rate_limiter_done(&limiter);
}

static void a_pause_stops_the_time(void)
{
	make(&none, &(struct token_bucket_limit){10, 5, SECOND});
	CHECK_EQ(work(1, now), 15);
	now += 300 * MS;
	rate_limiter_pause(&limiter, now);
	rate_limiter_pause(&limiter, now + SECOND);
	now += 3600 * SECOND;
	rate_limiter_resume(&limiter, now);
	CHECK_EQ(work(1, now), 3);
	CHECK_EQ(work(1, now + SECOND), 10);
	rate_limiter_done(&limiter);
}

static void the_fill_moves(void)
{
	struct rate_limiter_state state, again;

	make(&none, &(struct token_bucket_limit){10, 5, SECOND});
	CHECK_EQ(work(1, now), 15);
	now += 400 * MS;
	rate_limiter_pause(&limiter, now);
	rate_limiter_save(&limiter, &state, now + SECOND);
	rate_limiter_save(&limiter, &again, now + 2 * SECOND);
	CHECK_EQ(memcmp(&state, &again, sizeof(state)), 0);
	rate_limiter_done(&limiter);
	make(&none, &(struct token_bucket_limit){10, 5, SECOND});
	rate_limiter_load(&limiter, &state, now);
	now += 60 * SECOND;
	rate_limiter_resume(&limiter, now);
	CHECK_EQ(work(1, now), 4);
	rate_limiter_done(&limiter);
}

static void a_wait_has_a_bound(void)
{
	make(&none, &(struct token_bucket_limit){1, 0, UINT64_MAX});
	CHECK_EQ(work(1, now), 1);
	CHECK_EQ(rate_limiter_wait_at(&limiter, now), 3600 * SECOND);
	rate_limiter_done(&limiter);
}

TEST_MAIN(TEST(without_a_limit_it_is_off), TEST(the_tighter_limit_holds),
	  TEST(one_limit_is_changed_and_the_other_keeps_its_fill), TEST(a_pause_stops_the_time), TEST(the_fill_moves),
	  TEST(a_wait_has_a_bound))
