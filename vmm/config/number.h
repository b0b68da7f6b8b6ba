/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers with units as people write them: counts, sizes, times and rates. -EINVAL with the message for the user, which
 * names what may be written. Those who format have a buffer of 24 characters, which is returned.
 */
#pragma once

#include "core/err.h"
#include "core/token_bucket.h"

/* Decimal digits. */
int number_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err);

/* Bytes: digits, and K, M, G or T. "512M", "1536K", "4097". */
int number_parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err);
const char *number_format_size(uint64_t bytes, char *buf);

/* ns: digits, and us, ms, s, m or h; formatted in the largest unit that they are a multiple of. */
int number_parse_time(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err);
const char *number_format_time(uint64_t ns, char *buf);

/*
 * A rate, as the limits of devices have it: so much in each period, and a burst once. period_ns 0: so much a second,
 * evenly. "10M", "50M/2s+1G", "off"; count: "100", numbers instead of sizes.
 */
struct rate {
	bool given;
	uint64_t amount; /* 0: no limit */
	uint64_t period_ns, burst;
};
/* max is of the amount and the burst. */
int number_parse_rate(const char *text, bool count, uint64_t max, struct rate *ret, struct err *err);
#define NUMBER_RATE_TEXT 80
const char *number_format_rate(const struct rate *rate, bool count, char buf[NUMBER_RATE_TEXT]);
/* Its bucket. */
struct token_bucket_limit number_rate_limit(const struct rate *rate);
