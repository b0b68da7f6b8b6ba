/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bandwidth limit that several threads share. A thread takes its bytes before it sends them and gets the time when it
 * may send. At most a hundredth of a second's bytes can be saved up.
 */
#pragma once

#include <pthread.h>

#include "core/err.h"

struct limiter {
	pthread_mutex_t lock;
	uint64_t rate; /* bytes a second; 0: no limit */
	int64_t next;  /* ns of CLOCK_MONOTONIC, when all bytes taken so far have been sent */
};

void limiter_init(struct limiter *limiter, uint64_t rate);
void limiter_destroy(struct limiter *limiter);

/* Takes bytes at time `now`. Returns when they may be sent: `now` or earlier if the limit allows it at once. */
int64_t limiter_take(struct limiter *limiter, uint64_t bytes, int64_t now);

/* Takes bytes and waits until they may be sent. -ECANCELED when stop_fd becomes readable (-1: none). */
int limiter_wait(struct limiter *limiter, uint64_t bytes, int stop_fd);

/* How much to send at once for an even rate: 64 KiB to max. */
size_t limiter_piece(const struct limiter *limiter, size_t max);
