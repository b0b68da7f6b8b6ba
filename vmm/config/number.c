/* SPDX-License-Identifier: Apache-2.0 */
/* See number.h. */
#include "vmm/config/number.h"

#include <stdio.h>

int number_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	char *end;
	uint64_t value;

	if (*text < '0' || *text > '9')
		return err_set(err, -EINVAL, "not a number; write one from %llu to %llu", (unsigned long long)min,
			       (unsigned long long)max);
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end)
		return err_set(err, -EINVAL, "not a number; write one from %llu to %llu", (unsigned long long)min,
			       (unsigned long long)max);
	if (errno || value < min || value > max)
		return err_set(err, -EINVAL, "out of range; write a number from %llu to %llu", (unsigned long long)min,
			       (unsigned long long)max);
	*ret = value;
	return 0;
}

const char *number_format_size(uint64_t bytes, char *buf)
{
	static const char units[] = "KMGT";
	int unit = -1;

	while (bytes && !(bytes & 1023) && unit < 3) {
		bytes >>= 10;
		unit++;
	}
	snprintf(buf, 24, unit < 0 ? "%llu" : "%llu%c", (unsigned long long)bytes, unit < 0 ? 0 : units[unit]);
	return buf;
}

int number_parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	static const char units[] = "KMGT";
	const char *unit;
	char low[24], high[24], *end;
	unsigned int shift = 0;
	uint64_t value;

	if (*text < '0' || *text > '9')
		return err_set(err, -EINVAL, "not a size; write a number followed by K, M, G or T");
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end) {
		unit = strchr(units, *end);
		if (!unit || end[1])
			return err_set(err, -EINVAL, "not a size; write a number followed by K, M, G or T");
		shift = 10 * (unsigned int)(unit - units + 1);
	}
	if (errno || value > UINT64_MAX >> shift || value << shift < min || value << shift > max)
		return err_set(err, -EINVAL, "out of range; write a size from %s to %s", number_format_size(min, low),
			       number_format_size(max, high));
	*ret = value << shift;
	return 0;
}

static const struct time_unit {
	const char *name;
	uint64_t ns;
} time_units[] = {{"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {"m", 60000000000}, {"h", 3600000000000}};

/* In the largest unit that ns is a multiple of. */
const char *number_format_time(uint64_t ns, char *buf)
{
	size_t unit = ARRAY_SIZE(time_units) - 1;

	while (unit && ns % time_units[unit].ns)
		unit--;
	snprintf(buf, 24, "%llu%s", (unsigned long long)(ns / time_units[unit].ns), time_units[unit].name);
	return buf;
}

int number_parse_time(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	const struct time_unit *unit = NULL;
	char low[24], high[24], *end = NULL;
	uint64_t value = 0;

	errno = 0;
	if (*text >= '0' && *text <= '9')
		value = strtoull(text, &end, 10);
	for (size_t i = 0; end && i < ARRAY_SIZE(time_units); i++)
		if (strcmp(end, time_units[i].name) == 0)
			unit = &time_units[i];
	if (!unit)
		return err_set(err, -EINVAL, "not a time; write a number followed by us, ms, s, m or h");
	if (errno || value > UINT64_MAX / unit->ns || value * unit->ns < min || value * unit->ns > max)
		return err_set(err, -EINVAL, "out of range; write a time from %s to %s", number_format_time(min, low),
			       number_format_time(max, high));
	*ret = value * unit->ns;
	return 0;
}

/* ---- rates ---- */

#define SECOND 1000000000ull
#define PERIOD_MIN (SECOND / 1000)
#define PERIOD_MAX (3600 * SECOND)
#define EVENLY 10u /* the bucket of a rate without a period has that part of a second */

static int number_bad_rate(bool count, struct err *err)
{
	return err_set(err, -EINVAL, "not a rate; write %s a second, %s/TIME, or off; +%s after it is for once",
		       count ? "100 for that many" : "10M for that much", count ? "100" : "10M", count ? "500" : "1G");
}

static int number_parse_amount(const char *text, bool count, uint64_t max, uint64_t *ret, struct err *err)
{
	if (*text < '0' || *text > '9')
		return number_bad_rate(count, err);
	return count ? number_parse_uint(text, 1, max, ret, err) : number_parse_size(text, 1, max, ret, err);
}

int number_parse_rate(const char *text, bool count, uint64_t max, struct rate *ret, struct err *err)
{
	struct rate rate = {.given = true};
	char copy[NUMBER_RATE_TEXT], *period, *burst;
	int code;

	if (strcmp(text, "off") == 0) {
		*ret = rate;
		return 0;
	}
	if (strlen(text) >= sizeof(copy))
		return number_bad_rate(count, err);
	snprintf(copy, sizeof(copy), "%s", text);
	burst = strchr(copy, '+');
	if (burst)
		*burst++ = 0;
	period = strchr(copy, '/');
	if (period)
		*period++ = 0;
	code = number_parse_amount(copy, count, max, &rate.amount, err);
	if (!code && period)
		code = number_parse_time(period, PERIOD_MIN, PERIOD_MAX, &rate.period_ns, err);
	if (!code && burst)
		code = number_parse_amount(burst, count, max, &rate.burst, err);
	if (!code)
		*ret = rate;
	return code;
}

static const char *number_format_amount(uint64_t amount, bool count, char buf[24])
{
	if (!count)
		return number_format_size(amount, buf);
	snprintf(buf, 24, "%llu", (unsigned long long)amount);
	return buf;
}

const char *number_format_rate(const struct rate *rate, bool count, char buf[NUMBER_RATE_TEXT])
{
	char amount[24], period[24], burst[24];

	if (!rate->amount)
		return "off";
	snprintf(buf, NUMBER_RATE_TEXT, "%s%s%s%s%s", number_format_amount(rate->amount, count, amount),
		 rate->period_ns ? "/" : "", rate->period_ns ? number_format_time(rate->period_ns, period) : "",
		 rate->burst ? "+" : "", rate->burst ? number_format_amount(rate->burst, count, burst) : "");
	return buf;
}

/* A full bucket is a tenth of a second's worth, so that it adds little: of fewer than ten a second, it has one. */
struct token_bucket_limit number_rate_limit(const struct rate *rate)
{
	uint64_t size = MAX(rate->amount / EVENLY, 1);

	if (!rate->amount || rate->period_ns)
		return (struct token_bucket_limit){rate->amount, rate->burst, rate->period_ns};
	return (struct token_bucket_limit){size, rate->burst, (uint64_t)((unsigned __int128)size * SECOND / rate->amount)};
}
