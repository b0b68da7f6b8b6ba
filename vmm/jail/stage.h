/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage: a process that parses what a stranger has written, for one that has rights. It is forked before anything is
 * opened; it has no descriptor but its socket, no capability, the filter of THREAD_STAGE, and limits of time and memory.
 * It takes one text, gives one answer and ends. Who asks takes the answer for hostile: code that has taken over the stage
 * may answer anything. Called by the session.
 *
 * It ends with who has made it. Whatever becomes of it, who asks gets one line.
 */
#pragma once

#include "core/err.h"
#include "core/state.h"
#include "vmm/config/config.h"

struct stage;

struct stage_options {
	/* In the stage: parses the text and appends the answer. */
	int (*parse)(const void *text, size_t len, struct state_buffer *answer, struct err *err);
	size_t most_text, most_answer; /* bytes */
	size_t memory;                 /* bytes that the stage may have; 0: no limit */
	unsigned int wait_ms;          /* from a question to the end of its answer */
	enum seccomp_mode seccomp;
};

/* Forks; the calling process has one thread. */
int stage_create(const struct stage_options *options, struct stage **ret, struct err *err);
/* The stage's process is gone when it returns. NULL is fine. */
void stage_destroy(struct stage *stage);

/* Gives the stage its text, which is done only once. */
bool stage_was_asked(const struct stage *stage);
int stage_ask(struct stage *stage, const void *text, size_t len, struct err *err);
/*
 * Waits for the answer and appends it. -EBADMSG: the text is not valid, and err says why in the stage's words, or the
 * answer is too long; -EPIPE: the stage ended without one; -ETIMEDOUT.
 */
int stage_answer(struct stage *stage, struct state_buffer *answer, struct err *err);
