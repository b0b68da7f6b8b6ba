/* SPDX-License-Identifier: Apache-2.0 */
/* See limiter.h. */
#include "vmm/migration/limiter.h"

#include <poll.h>

#include "core/monotonic.h"

#define SECOND 1000000000ll
#define SAVED (SECOND / 100) /* the most that can be saved up */

void limiter_init(struct limiter *limiter, uint64_t rate)
{
	*limiter = (struct limiter){.rate = rate};
	pthread_mutex_init(&limiter->lock, NULL);
}

void limiter_destroy(struct limiter *limiter)
{
	pthread_mutex_destroy(&limiter->lock);
}

int64_t limiter_take(struct limiter *limiter, uint64_t bytes, int64_t now)
{
	int64_t when;

	if (!limiter->rate)
		return now;
	pthread_mutex_lock(&limiter->lock);
	when = MAX(limiter->next, now - SAVED);
	limiter->next = when + (int64_t)((double)bytes * SECOND / (double)limiter->rate);
	pthread_mutex_unlock(&limiter->lock);
	return when;
}

int limiter_wait(struct limiter *limiter, uint64_t bytes, int stop_fd)
{
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
	int64_t when = limiter_take(limiter, bytes, (int64_t)monotonic_ns()), left;

	while ((left = when - (int64_t)monotonic_ns()) > 0) {
		const struct timespec span = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};

		if (ppoll(&stop, 1, &span, NULL) > 0)
			return -ECANCELED;
	}
	return 0;
}

size_t limiter_piece(const struct limiter *limiter, size_t max)
{
	uint64_t piece = limiter->rate / 100;

	return limiter->rate ? (size_t)MAX(MIN(piece, (uint64_t)max), KIB(64)) : max;
}
