/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time of day: gmtime(3) and timegm(3) without the C library's time zones, which open a file on their first use, when
 * the process may not open files any more. Any thread.
 */
#pragma once

#include <stdint.h>
#include <time.h>

/* Seconds since 1970, at most 10^13 before or after, as a date in the Gregorian calendar. Sets tm_sec to tm_wday. */
void utc_fields(int64_t seconds, struct tm *ret);
/* The other way round; any of tm_sec to tm_year may be out of its range. */
int64_t utc_seconds(const struct tm *tm);

/* Writes "2026-11-30T12:00:00.000000Z", now, and returns text. */
#define UTC_TEXT 48
const char *utc_now(char text[UTC_TEXT]);
