/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One descriptor that ends the waits of a migration: it is readable when somebody cancels, or when a deadline has
 * passed. It is what channels, senders and receivers get as their cancel descriptor, so no wait of theirs is longer
 * than the step that it belongs to. A peer that is alive but does not get on cannot delay it.
 *
 * Its owner sets it, on the migration's thread; any thread may wait for fd.
 */
#pragma once

#include "core/err.h"

struct deadline {
	int fd;       /* readable: cancelled, or passed. Waits end with -ECANCELED */
	int timer_fd;
};

#define DEADLINE_NONE ((struct deadline){-1, -1})

/* No deadline yet. cancel_fd is not owned; -1: nobody cancels. */
int deadline_create(int cancel_fd, struct deadline *ret, struct err *err);
void deadline_destroy(struct deadline *deadline);

/*
 * It passes at that time (ns of CLOCK_MONOTONIC); 0: never. It has not passed when this returns, unless time is over.
 */
void deadline_set(struct deadline *deadline, uint64_t time);
bool deadline_passed(const struct deadline *deadline);
