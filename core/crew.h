/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker crew: threads that share one job. The first failure is the result and breaks off the other members, even if
 * they wait. No thread outlives the crew. The data they work on belongs to the owner.
 */
#pragma once

#include "core/err.h"
#include "core/thread.h"

struct crew;

struct crew_ops {
	/* A member's work, on its thread: 0 or -errno; err is not NULL. *ret of crew_create is already written. */
	int (*work)(void *opaque, unsigned int index, struct err *err);
	/*
	 * Makes the member's waits fail, so that its work ends soon. Called once for each member, the failed one
	 * included, on any thread, with the crew's lock held. NULL: work checks crew_broken or polls crew_fd itself.
	 */
	void (*break_off)(void *opaque, unsigned int index);
};

/*
 * Starts count threads of a kind, named name and their index. Work begins when all have started; if one cannot be
 * started, none works, and the error is that of pthread_create(3). ops is copied.
 */
int crew_create(const struct crew_ops *ops, void *opaque, unsigned int count, enum thread_kind kind, const char *name,
		struct crew **ret, struct err *err);
/* Breaks off members still at work (-ECANCELED) and joins all threads. NULL is fine. */
void crew_destroy(struct crew *crew);

/* Breaks off all members, as if one had failed with code and err. No effect after the first failure. Any thread. */
void crew_fail(struct crew *crew, int code, const struct err *err);
bool crew_broken(struct crew *crew);
/* Readable after the first failure. Owned by the crew. */
int crew_fd(const struct crew *crew);

/*
 * Waits until no member is at work. A readable cancel_fd (-1: none) breaks them off with -ECANCELED. False: deadline
 * (ms of monotonic_ms; below 0: none) has passed and a member is still at work. On the owner's thread.
 */
bool crew_wait(struct crew *crew, int cancel_fd, int64_t deadline);
/* The first failure, or 0. Any thread. */
int crew_result(struct crew *crew, struct err *err);

/*
 * Called by a member that is done; waits for the next round. True: crew_again was called; false: the crew was broken
 * off or is being destroyed, and work must return.
 */
bool crew_next(struct crew *crew, unsigned int index);
/* For the owner, after crew_wait has returned true: crew_next returns to all members. No effect after a failure. */
void crew_again(struct crew *crew);
