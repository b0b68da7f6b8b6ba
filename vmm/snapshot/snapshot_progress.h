/* SPDX-License-Identifier: Apache-2.0 */
/* How long work on a snapshot's files tells its caller how far it is, and is ended by him. */
#pragma once

#include "core/err.h"

/* Told from time to time what is done of a long work: nonzero (-ECANCELED) ends it. All zero: nobody is. */
struct snapshot_progress {
	int (*tick)(void *opaque, uint64_t done, uint64_t total, struct err *err); /* bytes */
	void *opaque;
};

static inline int snapshot_tick(const struct snapshot_progress *progress, uint64_t done, uint64_t total, struct err *err)
{
	return progress && progress->tick ? progress->tick(progress->opaque, done, total, err) : 0;
}
