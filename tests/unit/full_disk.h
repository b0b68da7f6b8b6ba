/* SPDX-License-Identifier: Apache-2.0 */
/* Writes behind a number of bytes of any file fail, as on a file system that is full. */
#pragma once

#include "tests/unit/test.h"

#include <signal.h>
#include <sys/resource.h>

/* RLIM_INFINITY: none fails any more. */
static inline void limit_writes(rlim_t bytes)
{
	struct rlimit limit;

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
}
