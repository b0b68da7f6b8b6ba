/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "Did you mean ...?": the known word that is closest to one that is not. Called wherever a word from a person is
 * refused.
 */
#pragma once

#include "core/err.h"

struct nearest {
	const char *word; /* what was typed */
	size_t len;       /* of it */
	const char *best; /* the closest candidate so far, NULL while none is close */
	unsigned int distance;
};

/* Begins a search for word, of which the first len bytes count. */
struct nearest nearest_begin(const char *word, size_t len);

/*
 * Offers a candidate, which is kept and not copied. The distance is the number of letters inserted, removed, changed
 * or swapped with their neighbour; a word that the candidate begins with counts as one away. A candidate more than a
 * third of its own letters away (two at least for words of four and more) is not close.
 */
void nearest_offer(struct nearest *nearest, const char *candidate);

/* ", did you mean WORD?" into buf, or nothing when nearest is NULL. Returns buf. */
#define NEAREST_HINT 80
const char *nearest_hint(const char *dashes, const char *nearest, char *buf);
