/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts helper programs (process.h); and a process that does so for one that is confined and cannot. It is forked before
 * that, holds nothing, and starts only what its rules name: it does not trust who asks. It ends with who has made it, and so
 * do the helpers.
 */
#pragma once

#include <sys/types.h>

#include "core/err.h"

#define HELPERS_MOST 64 /* at once */

/* The words of a program and its arguments; NULL in their place: any text. */
struct helper_rule {
	const char *const *words;
	size_t count;
};

struct helpers;

/*
 * Forks; the calling process has one thread. apart: with mounts of its own, so that it finds the programs when the caller's
 * root has changed.
 */
int helpers_create(const struct helper_rule *rules, size_t count, bool apart, struct helpers **ret, struct err *err);
/* The helpers end; one that the kernel keeps is not waited for. NULL is fine. */
void helpers_destroy(struct helpers *helpers);

/*
 * As process_start, by the helpers of the calling thread (thread_set_helpers) if it has some. -EPERM: no rule has these
 * words, or the thread is confined and has none; -EAGAIN: there are HELPERS_MOST; -ECONNRESET: who starts them has ended,
 * or has not replied for ten seconds.
 */
int helpers_start(const char *const argv[], const int *fds, size_t count, int words_fd, pid_t *pid);
/* Whether the helper has ended; *status as waitpid(2). */
bool helpers_reap(pid_t pid, int *status);
/* Ends the helper and reaps it, unless the kernel keeps it for longer than two seconds. */
void helpers_kill(pid_t pid);
