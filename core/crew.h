/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker crew: threads that do one piece of work together. The first failure counts and breaks off the others, wherever they
 * wait; none of them outlives the crew. What they work on is the owner's.
 */
#pragma once

#include "core/err.h"

struct crew;

struct crew_ops {
	/* A member's work, on its thread: 0 or what went wrong; err is there. By then *ret of crew_create is written. */
	int (*work)(void *opaque, unsigned int index, struct err *err);
	/*
	 * Makes what the member waits for fail, so that its work ends soon. Called once for each member, the one that failed
	 * included, on any thread and with the crew's lock held. NULL: the work looks at crew_broken or crew_fd itself.
	 */
	void (*break_off)(void *opaque, unsigned int index);
};

/*
 * Starts count threads, named name and their index. None begins to work before all are there; where one cannot be started none
 * does, and the error is that of pthread_create(3). ops is copied.
 */
int crew_create(const struct crew_ops *ops, void *opaque, unsigned int count, const char *name, struct crew **ret,
		struct err *err);
/* Breaks off who is still at work (-ECANCELED) and joins all. NULL is fine. */
void crew_destroy(struct crew *crew);

/* Breaks off all, as a member's failure with code and err does. After the first failure it does nothing. Any thread. */
void crew_fail(struct crew *crew, int code, const struct err *err);
bool crew_broken(struct crew *crew);
/* Readable from the first failure on. Owned by the crew. */
int crew_fd(const struct crew *crew);

/*
 * Waits until no member is at work. A readable cancel_fd (-1: none) breaks them off with -ECANCELED. False when deadline (ms of
 * monotonic_ms; below 0: none) has passed and one still is. The owner's thread.
 */
bool crew_wait(struct crew *crew, int cancel_fd, int64_t deadline);
/* The first failure, or 0. Any thread. */
int crew_result(struct crew *crew, struct err *err);

/*
 * For a member: its work is done, and it waits for more. True: crew_again was called; false: the crew was broken off or is
 * being destroyed, and work is to return.
 */
bool crew_next(struct crew *crew, unsigned int index);
/* For the owner, after crew_wait has returned true: all members go on from crew_next. After a failure it does nothing. */
void crew_again(struct crew *crew);
