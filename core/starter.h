/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The starter: a thread that does for the others what they may not do themselves, when their filters are closed. A
 * filter is inherited and can only become narrower, so this thread keeps the widest one. It starts threads, which narrow
 * their own. For what may wait, such as an open of a file, it starts a thread that does that and ends, so that nobody
 * waits for somebody else's storage. It never looks at what a guest has written.
 *
 * The main thread creates it before it closes its own filter.
 */
#pragma once

#include "core/err.h"
#include "core/thread.h"

struct starter;

/* One call. Its owner keeps it until starter_wait has returned. */
struct starter_errand {
	int (*fn)(void *argument);
	void *argument;
	bool swift; /* fn does not wait for anything */
	/* the starter's */
	struct starter *starter;
	struct starter_errand *next;
	int code;
	bool done;
};

int starter_create(struct starter **ret, struct err *err);
/* Starts its thread, on a thread that is not confined, with the filters of that. Does not wait for it. */
int starter_start(struct starter *starter, struct err *err);
/* No call is in progress. NULL is fine. */
void starter_destroy(struct starter *starter);

/* As thread_filters.call. Any thread. */
int starter_call(struct starter *starter, int (*fn)(void *argument), void *argument, bool swift);
/* The same in two steps, for who does something else meanwhile. */
void starter_post(struct starter *starter, struct starter_errand *errand);
int starter_wait(struct starter_errand *errand);
