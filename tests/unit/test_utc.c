/* SPDX-License-Identifier: Apache-2.0 */
/* core/utc: each day and second is what the C library says, both ways, also long ago and far away. */
#include "core/utc.h"
#include "tests/unit/test.h"

#include "core/util.h"

static void check(int64_t seconds)
{
	struct tm wanted, found;
	time_t time = seconds;

	CHECK(gmtime_r(&time, &wanted));
	utc_fields(seconds, &found);
	if (found.tm_year != wanted.tm_year || found.tm_mon != wanted.tm_mon || found.tm_mday != wanted.tm_mday ||
	    found.tm_hour != wanted.tm_hour || found.tm_min != wanted.tm_min || found.tm_sec != wanted.tm_sec ||
	    found.tm_wday != wanted.tm_wday) {
		printf("# at %lld: %s", (long long)seconds, asctime(&found));
		CHECK(false);
	}
	CHECK_EQ(utc_seconds(&found), seconds);
}

static void each_day_of_some_centuries(void)
{
	for (int64_t day = -800 * 366; day < 600 * 366; day++) {
		check(day * 86400);
		check(day * 86400 + 86399);
	}
}

static void each_second_of_a_day(void)
{
	for (int64_t second = 0; second < 86400; second++)
		check(1796083200 + second);
}

static uint64_t seed = 88172645463325252ull;

static int64_t random_below(int64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (int64_t)(seed >> 2) % n;
}

static void ten_thousand_centuries(void)
{
	for (unsigned int i = 0; i < 100000; i++)
		check(random_below(20000000000000) - 10000000000000);
}

/* What a guest writes into its clock: no field need be in its range. */
static void fields_out_of_their_range(void)
{
	for (unsigned int i = 0; i < 100000; i++) {
		struct tm tm = {
			.tm_sec = (int)random_below(400) - 100, .tm_min = (int)random_below(400) - 100,
			.tm_hour = (int)random_below(400) - 100, .tm_mday = (int)random_below(400) - 100,
			.tm_mon = (int)random_below(400) - 100, .tm_year = (int)random_below(4000) - 1000,
		};
		struct tm copy = tm;

		CHECK_EQ(utc_seconds(&tm), timegm(&copy));
	}
}

static void now_is_a_text(void)
{
	char before[UTC_TEXT], after[UTC_TEXT];
	struct tm tm;
	long us;

	utc_now(before);
	utc_now(after);
	CHECK_EQ(strlen(before), strlen("2026-11-30T12:00:00.000000Z"));
	CHECK(strcmp(before, after) <= 0);
	CHECK_EQ(sscanf(before, "%d-%d-%dT%d:%d:%d.%ldZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
			&tm.tm_sec, &us), 7);
	tm.tm_year -= 1900;
	tm.tm_mon--;
	CHECK(time(NULL) - utc_seconds(&tm) >= 0 && time(NULL) - utc_seconds(&tm) < 60);
}

TEST_MAIN(TEST(each_day_of_some_centuries), TEST(each_second_of_a_day), TEST(ten_thousand_centuries),
	  TEST(fields_out_of_their_range), TEST(now_is_a_text))
