/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean ...?": finds the known word that is closest to an unknown one, for the message about the latter. */
#pragma once

#include "core/err.h"

struct nearest {
	const char *word; /* as typed */
	size_t len;       /* of word */
	const char *best; /* the closest candidate so far; NULL: none is close */
	unsigned int distance;
};

/* Begins a search for the first len bytes of word. */
struct nearest nearest_begin(const char *word, size_t len);

/*
 * Offers a candidate, which is not copied. The distance is the number of letters inserted, removed, changed or swapped
 * with their neighbour; it is 1 if the candidate begins with the word. A candidate is close up to a distance of a
 * third of its letters, and at least 2; of 1 if it has less than four letters.
 */
void nearest_offer(struct nearest *nearest, const char *candidate);

/* Writes ", did you mean WORD?" into buf, or "" if nearest is NULL. Returns buf. */
#define NEAREST_HINT 80
const char *nearest_hint(const char *dashes, const char *nearest, char *buf);
