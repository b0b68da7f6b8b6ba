/* SPDX-License-Identifier: Apache-2.0 */
/* See utc.h. Here a year begins in March: then the odd day is its last one, and each five months have 153 days. */
#include "core/utc.h"

#include "core/util.h"

#include <stdio.h>

#define DAY 86400
#define CYCLE 146097  /* days of the calendar's 400 years */
#define BEFORE 719468 /* days from 0000-03-01 to 1970-01-01, */
#define WEEKDAY 3     /* the first of which was a Wednesday */

/* Rounds down, not towards zero. */
static int64_t utc_divide(int64_t value, int64_t by)
{
	return value / by - (value % by < 0);
}

void utc_fields(int64_t seconds, struct tm *ret)
{
	int64_t days = utc_divide(seconds, DAY) + BEFORE, cycle = utc_divide(days, CYCLE);
	int64_t rest = days - cycle * CYCLE, time = seconds - utc_divide(seconds, DAY) * DAY;
	int64_t years = (rest - rest / 1460 + rest / 36524 - rest / (CYCLE - 1)) / 365;
	int of_year = (int)(rest - (365 * years + years / 4 - years / 100)), month = (5 * of_year + 2) / 153;

	*ret = (struct tm){
		.tm_sec = (int)(time % 60), .tm_min = (int)(time / 60 % 60), .tm_hour = (int)(time / 3600),
		.tm_mday = of_year - (153 * month + 2) / 5 + 1, .tm_mon = month < 10 ? month + 2 : month - 10,
		.tm_year = (int)(cycle * 400 + years - 1900 + (month >= 10)),
		.tm_wday = (int)(days + WEEKDAY - utc_divide(days + WEEKDAY, 7) * 7),
	};
}

int64_t utc_seconds(const struct tm *tm)
{
	int64_t months = (int64_t)tm->tm_mon - 2 + 12 * ((int64_t)tm->tm_year + 1900); /* since March of year 0 */
	int64_t year = utc_divide(months, 12), month = months - year * 12;
	int64_t days = year * 365 + utc_divide(year, 4) - utc_divide(year, 100) + utc_divide(year, 400);

	days += (153 * month + 2) / 5 + tm->tm_mday - 1 - BEFORE;
	return ((days * 24 + tm->tm_hour) * 60 + tm->tm_min) * 60 + tm->tm_sec;
}

const char *utc_now(char text[UTC_TEXT])
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	utc_fields(now.tv_sec, &tm);
	snprintf(text, UTC_TEXT, "%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
		 tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000);
	return text;
}
