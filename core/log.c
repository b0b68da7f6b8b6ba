/* SPDX-License-Identifier: Apache-2.0 */
/* See log.h. */
#include "core/log.h"

#include "core/monotonic.h"
#include "core/nowait.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#define LINE 1024
#define BUCKETS 256u /* call sites with their devices; those of one hash share a bucket */
#define BURST 10u
#define REFILL 10000000000ull /* ns for a line more */

struct log_bucket {
	uint64_t refilled; /* when it got its last token; 0: it is full */
	uint32_t tokens, left_out;
};

struct log_state {
	pthread_mutex_t lock;
	int own_fd; /* the same file, with O_NONBLOCK; or -1 */
	struct nowait_out out;
	uint64_t unwritten; /* lines since the last one that was written */
	struct log_bucket buckets[BUCKETS];
};

void log_open(struct log *log)
{
	struct log_state *state = calloc(1, sizeof(*state));

	if (!state)
		return;
	state->own_fd = nowait_reopen(log->fd);
	state->out = nowait_out(state->own_fd >= 0 ? state->own_fd : log->fd);
	pthread_mutex_init(&state->lock, NULL);
	log->state = state;
}

/* FNV-1a of the call site and of the text up to the first colon. */
static struct log_bucket *log_bucket(struct log_state *state, const char *fmt, const char *text)
{
	uint32_t hash = 2166136261u ^ (uint32_t)((uintptr_t)fmt ^ (uintptr_t)fmt >> 32);

	hash *= 16777619u;
	for (; *text && *text != ':'; text++)
		hash = (hash ^ (uint8_t)*text) * 16777619u;
	return &state->buckets[(hash ^ hash >> 16) % BUCKETS];
}

/* Whether there is a token for another line. */
static bool log_may(struct log_bucket *bucket, uint64_t now)
{
	uint64_t more;

	if (!bucket->refilled) {
		bucket->refilled = now;
		bucket->tokens = BURST;
	}
	more = (now - bucket->refilled) / REFILL;
	bucket->refilled += more * REFILL;
	bucket->tokens = (uint32_t)MIN(bucket->tokens + more, BURST);
	if (bucket->tokens) {
		bucket->tokens--;
		return true;
	}
	bucket->left_out++;
	return false;
}

/* Lock held. */
static void log_put(struct log_state *state, const char *line, size_t len)
{
	ssize_t n = 0;

	for (size_t done = 0; done < len && n >= 0; done += (size_t)n)
		n = nowait_write(&state->out, line + done, len - done);
	state->unwritten += n < 0;
}

/* Tells first what was left out before this line. Lock held. */
static void log_put_counted(const struct log *log, struct log_bucket *bucket, const char *line, size_t len)
{
	struct log_state *state = log->state;
	char more[120];
	int n;

	if (state->unwritten) {
		uint64_t unwritten = state->unwritten;

		n = snprintf(more, sizeof(more), "%.40s%llu lines were lost here: nobody read them\n", log->prefix ?: "",
			     (unsigned long long)unwritten);
		state->unwritten = 0;
		log_put(state, more, (size_t)n);
		if (state->unwritten) {
			state->unwritten = unwritten + 1;
			return;
		}
	}
	if (bucket->left_out) {
		n = snprintf(more, sizeof(more), "%.40s%u lines like the next one were left out\n", log->prefix ?: "",
			     bucket->left_out);
		bucket->left_out = 0;
		log_put(state, more, (size_t)n);
	}
	log_put(state, line, len);
}

void log_close(struct log *log)
{
	struct log_state *state = log->state;
	uint64_t left_out = 0;
	char line[120];
	int n;

	if (!state)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		left_out += state->buckets[i].left_out;
	left_out += state->unwritten;
	if (left_out) {
		n = snprintf(line, sizeof(line), "%.40s%llu more lines were left out\n", log->prefix ?: "",
			     (unsigned long long)left_out);
		log_put(state, line, (size_t)n);
	}
	fd_close(&state->own_fd);
	pthread_mutex_destroy(&state->lock);
	free(take_ptr(log->state));
}

/* One line with its newline; text is where fmt begins in it. */
static void log_write(const struct log *log, const char *fmt, const char *line, const char *text, size_t len)
{
	struct log_bucket *bucket;

	if (!log->state) {
		if (write(log->fd, line, len) < 0) {
			/* There is no other place to report it. */
		}
		return;
	}
	pthread_mutex_lock(&log->state->lock);
	bucket = log_bucket(log->state, fmt, text);
	if (log_may(bucket, monotonic_ns()))
		log_put_counted(log, bucket, line, len);
	pthread_mutex_unlock(&log->state->lock);
}

void log_line(const struct log *log, enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = {
		[LOG_ERROR] = "", [LOG_WARN] = "warning: ", [LOG_INFO] = "", [LOG_DEBUG] = "debug: "};
	char line[LINE];
	va_list args;
	int head, body, saved = errno;
	size_t len;

	if (!log || level > log->level)
		return;
	head = snprintf(line, sizeof(line) / 2, "%s%s", log->prefix ?: "", words[level]);
	head = MIN(head, (int)sizeof(line) / 2 - 1);
	va_start(args, fmt);
	body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, args);
	va_end(args);
	len = (size_t)head + MIN((size_t)MAX(body, 0), sizeof(line) - (size_t)head - 2);
	line[len] = '\n';
	line[len + 1] = 0;
	log_write(log, fmt, line, line + head, len + 1);
	errno = saved;
}
