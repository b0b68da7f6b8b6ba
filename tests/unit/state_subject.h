/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold for every saved state, whatever it is of: it comes back byte for byte, a record that is cut off is
 * refused, and one with any byte changed is refused or loaded into something that can still be used.
 */
#pragma once

#include "core/state.h"

/* One kind of thing that has a state. */
struct state_subject {
	/* A fresh one, as a machine makes it; it may take the place of the one before, which has been saved by then. What goes
	 * wrong here fails the test. */
	void *(*make)(void);
	int (*save)(void *object, struct state_buffer *out, struct err *err);
	int (*load)(void *object, const void *data, size_t len, struct err *err);
	/* Uses it as guest and host would, with no expectation. */
	void (*use)(void *object);
	void (*drop)(void *object);
	/* How many bytes at the end of the record an older version's lacks, which loads, too. NULL: none. */
	size_t (*newer)(void *object);
};

/* Saves busy, loads that into a fresh one, and saves this again: the same bytes. The fresh one, for a look at it. */
void *subject_comes_back(const struct state_subject *subject, void *busy);

/* Loads busy's record cut off everywhere, which fails, and with each byte changed. */
void subject_survives(const struct state_subject *subject, void *busy);
