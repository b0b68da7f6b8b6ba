/* SPDX-License-Identifier: Apache-2.0 */
/* See nearest.h. The distance is "optimal string alignment", over three rows of a table. */
#include "vmm/config/nearest.h"

#include <stdio.h>

#define LONGEST 48u /* letters; for longer words, no candidate is close */

struct nearest nearest_begin(const char *word, size_t len)
{
	return (struct nearest){.word = word, .len = len, .distance = LONGEST};
}

static unsigned int nearest_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned int rows[3][LONGEST + 1];
	unsigned int *before = rows[0], *last = rows[1], *row = rows[2];

	for (size_t j = 0; j <= b_len; j++)
		last[j] = (unsigned int)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned int *spare = before;

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned int best = last[j - 1] + (a[i - 1] != b[j - 1]);

			best = MIN(best, last[j] + 1);
			best = MIN(best, row[j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = MIN(best, before[j - 2] + 1);
			row[j] = best;
		}
		before = last;
		last = row;
		row = spare;
	}
	return last[b_len];
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
	size_t len = strlen(candidate);
	unsigned int limit = len < 4 ? 1 : MAX((unsigned int)len / 3, 2u), found;

	if (nearest->len == 0 || nearest->len > LONGEST || len > LONGEST)
		return;
	if (nearest->len < len && memcmp(nearest->word, candidate, nearest->len) == 0) {
		found = 1;
	} else {
		found = nearest_distance(nearest->word, nearest->len, candidate, len);
		if (found > limit)
			return;
	}
	if (found < nearest->distance) {
		nearest->distance = found;
		nearest->best = candidate;
	}
}

const char *nearest_hint(const char *dashes, const char *nearest, char *buf)
{
	buf[0] = 0;
	if (nearest)
		snprintf(buf, NEAREST_HINT, ", did you mean %s%s?", dashes, nearest);
	return buf;
}
