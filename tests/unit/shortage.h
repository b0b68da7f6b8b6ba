/* SPDX-License-Identifier: Apache-2.0 */
/* A process that has no descriptor left, for tests of what must go on without. */
#pragma once

#include "core/util.h"
#include "tests/unit/test.h"

#include <sys/resource.h>

struct shortage {
	struct rlimit before;
	int fds[512];
	unsigned int count;
};

/* Takes all descriptors. What is opened in advance should be opened before. */
static inline void shortage_begin(struct shortage *shortage)
{
	shortage->count = 0;
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &shortage->before), 0);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ARRAY_SIZE(shortage->fds), shortage->before.rlim_max}), 0);
	while (shortage->count < ARRAY_SIZE(shortage->fds) && (shortage->fds[shortage->count] = dup(STDIN_FILENO)) >= 0)
		shortage->count++;
	CHECK_EQ(errno, EMFILE);
}

/* One descriptor is free again. */
static inline void shortage_ease(struct shortage *shortage)
{
	close(shortage->fds[--shortage->count]);
}

static inline void shortage_end(struct shortage *shortage)
{
	while (shortage->count)
		shortage_ease(shortage);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &shortage->before), 0);
}
