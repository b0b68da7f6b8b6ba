/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bandwidth cap that several threads share. Whoever wants to send takes its bytes first and is told when they may go; so what
 * is sent in any second is the cap, and no more than a hundredth of a second's worth was saved up before.
 */
#pragma once

#include <pthread.h>

#include "core/err.h"

struct limiter {
	pthread_mutex_t lock;
	uint64_t rate; /* bytes a second; 0: no cap */
	int64_t next;  /* ns of CLOCK_MONOTONIC, when what was taken so far is gone */
};

void limiter_init(struct limiter *limiter, uint64_t rate);
void limiter_destroy(struct limiter *limiter);

/* Takes bytes at the time `now`: from when on they may be sent, which is `now` or before where nothing holds them back. */
int64_t limiter_take(struct limiter *limiter, uint64_t bytes, int64_t now);

/* Takes bytes and waits until they may be sent. -ECANCELED as soon as stop_fd is readable (-1: none). */
int limiter_wait(struct limiter *limiter, uint64_t bytes, int stop_fd);

/* How much to send at once, so that the cap is even: 64 KiB to max. */
size_t limiter_piece(const struct limiter *limiter, size_t max);
