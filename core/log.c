/* SPDX-License-Identifier: Apache-2.0 */
/* See log.h. The journal's datagrams are those of systemd's "Native Journal Protocol": a field a line. */
#include "core/log.h"

#include "core/monotonic.h"
#include "core/nowait.h"
#include "core/token_bucket.h"
#include "core/utc.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LINE 1024
#define HEAD 256     /* before the text */
#define BUCKETS 256u /* call sites with their devices; those of one hash share a bucket */
#define JOURNAL "/run/systemd/journal/socket"

static const struct token_bucket_limit limit = {.size = 10, .refill_ns = 100000000000}; /* one each 10 s */

struct log_bucket {
	struct token_bucket tokens;
	uint32_t left_out;
};

struct log_state {
	pthread_mutex_t lock;
	int own_fd; /* the same file, with O_NONBLOCK; or -1 */
	struct nowait_out out;
	uint64_t unwritten; /* lines since the last one that was written */
	uint64_t lost;      /* lines that were left out or not written, in all */
	char machine[64];
	struct log_bucket buckets[BUCKETS];
};

/* A line with its newline. */
struct log_text {
	char line[HEAD + LINE];
	size_t len;
};

/* ---- where lines go ---- */

int log_to_file(struct log *log, const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);

	if (fd < 0 && errno == ENXIO)
		return err_set(err, -ENXIO, "%.200s: nobody reads this FIFO; start its reader first", path);
	if (fd < 0)
		return err_sys(err, -errno, "%.200s", path);
	log->fd = fd;
	log->form = LOG_FILE;
	return 0;
}

int log_to_journal(struct log *log, struct err *err)
{
	const struct sockaddr_un journal = {.sun_family = AF_UNIX, .sun_path = JOURNAL};
	_cleanup_(fd_close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(err, -errno, "journald");
	if (connect(fd, (const struct sockaddr *)&journal, sizeof(journal)) < 0)
		return err_set(err, -errno, "journald: %s: %s; is systemd-journald there? A file of this name is ./journald",
			       JOURNAL, strerrordesc_np(errno));
	log->fd = take_fd(&fd);
	log->form = LOG_JOURNAL;
	return 0;
}

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

void log_move(struct log *log, int *fd)
{
	char machine[sizeof(log->state->machine)] = "";

	if (log->state)
		snprintf(machine, sizeof(machine), "%s", log->state->machine);
	log_close(log);
	log->fd = take_fd(fd);
	log->form = LOG_FILE;
	log_open(log);
	log_set_machine(log, machine);
}

void log_set_machine(struct log *log, const char *name)
{
	if (!log->state)
		return;
	pthread_mutex_lock(&log->state->lock);
	snprintf(log->state->machine, sizeof(log->state->machine), "%s", name);
	pthread_mutex_unlock(&log->state->lock);
}

uint64_t log_lost(const struct log *log)
{
	return log->state ? __atomic_load_n(&log->state->lost, __ATOMIC_RELAXED) : 0;
}

/* ---- a line; with the lock of an open log ---- */

/* Who says it, for the forms that tell that: "2026-11-30T12:00:00.000000Z web[disk0-q0] ". */
static int log_head_file(const struct log_state *state, const char *thread, char head[HEAD])
{
	char time[UTC_TEXT];

	return snprintf(head, HEAD, "%s %s[%s] ", utc_now(time), *state->machine ? state->machine : "mvmm", thread);
}

static int log_head_brackets(const struct log *log, enum log_level level, const char *thread, char head[HEAD])
{
	static const char *const names[] = {[LOG_ERROR] = "ERROR", [LOG_WARN] = "WARN", [LOG_INFO] = "INFO", [LOG_DEBUG] = "DEBUG"};
	const char *machine = log->state && *log->state->machine ? log->state->machine : "mvmm";
	char time[UTC_TEXT];

	utc_now(time);
	time[strcspn(time, "Z")] = 0;
	return snprintf(head, HEAD, "%s000 [%s:%s%s%s] ", time, machine, thread, log->show_level ? ":" : "",
			log->show_level ? names[level] : "");
}

static int log_head_journal(const struct log_state *state, enum log_level level, const char *thread, char head[HEAD])
{
	static const int priorities[] = {[LOG_ERROR] = 3, [LOG_WARN] = 4, [LOG_INFO] = 6, [LOG_DEBUG] = 7};

	return snprintf(head, HEAD, "SYSLOG_IDENTIFIER=mvmm\nPRIORITY=%d\nMVMM_MACHINE=%s\nMVMM_THREAD=%s\nMESSAGE=",
			priorities[level], state->machine, thread);
}

/* What precedes the text. level LOG_INFO adds no word. */
static void log_head(const struct log *log, enum log_level level, struct log_text *text)
{
	static const char *const words[] = {
		[LOG_ERROR] = "", [LOG_WARN] = "warning: ", [LOG_INFO] = "", [LOG_DEBUG] = "debug: "};
	enum log_form form = log->state ? log->form : LOG_PLAIN;
	char thread[16] = "main";
	int len;

	if ((form != LOG_PLAIN || log->brackets) && gettid() != getpid())
		prctl(PR_GET_NAME, thread);
	if (log->brackets && form != LOG_JOURNAL)
		len = log_head_brackets(log, level, thread, text->line);
	else if (form == LOG_FILE)
		len = log_head_file(log->state, thread, text->line);
	else if (form == LOG_JOURNAL)
		len = log_head_journal(log->state, level, thread, text->line);
	else
		len = snprintf(text->line, HEAD, "%s", log->prefix ?: "");
	text->len = (size_t)MIN(len, HEAD - 1);
	if (form != LOG_JOURNAL && !log->brackets)
		text->len += (size_t)snprintf(text->line + text->len, LINE, "%s", words[level]);
}

/* Appends the text, without what would end the line or begin another field, and a newline. */
static void log_body(struct log_text *text, const char *fmt, va_list args) _printf_(2, 0);
static void log_body(struct log_text *text, const char *fmt, va_list args)
{
	size_t room = MIN(sizeof(text->line) - text->len - 1, (size_t)LINE), at = text->len;
	int len = vsnprintf(text->line + at, room, fmt, args);

	text->len += MIN((size_t)MAX(len, 0), room - 1);
	for (; at < text->len; at++)
		if ((unsigned char)text->line[at] < ' ' || text->line[at] == 0x7f)
			text->line[at] = '?';
	text->line[text->len++] = '\n';
	text->line[text->len] = 0;
}

static void log_put(struct log_state *state, const struct log_text *text)
{
	ssize_t n = 0;

	for (size_t done = 0; done < text->len && n >= 0; done += (size_t)n)
		n = nowait_write(&state->out, text->line + done, text->len - done);
	state->unwritten += n < 0;
	state->lost += n < 0;
}

static void log_put_own(const struct log *log, const char *fmt, ...) _printf_(2, 3);
static void log_put_own(const struct log *log, const char *fmt, ...)
{
	struct log_text text;
	va_list args;

	log_head(log, LOG_INFO, &text);
	va_start(args, fmt);
	log_body(&text, fmt, args);
	va_end(args);
	log_put(log->state, &text);
}

/* ---- limits; with the lock ---- */

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
static bool log_may(struct log_state *state, struct log_bucket *bucket, uint64_t now)
{
	if (!token_bucket_limit_is_set(&bucket->tokens.limit))
		token_bucket_init(&bucket->tokens, &limit, now);
	if (token_bucket_try(&bucket->tokens, 1, now))
		return true;
	bucket->left_out++;
	state->lost++;
	return false;
}

/* Tells first what was left out before this line. */
static void log_put_counted(const struct log *log, struct log_bucket *bucket, const struct log_text *text)
{
	struct log_state *state = log->state;
	uint64_t unwritten = state->unwritten;

	if (unwritten) {
		state->unwritten = 0;
		log_put_own(log, "%llu lines were lost here: nobody read them", (unsigned long long)unwritten);
		if (state->unwritten) {
			state->unwritten = unwritten + 1;
			return;
		}
	}
	if (bucket->left_out)
		log_put_own(log, "%u lines like the next one were left out", bucket->left_out);
	bucket->left_out = 0;
	log_put(state, text);
}

void log_close(struct log *log)
{
	struct log_state *state = log->state;
	uint64_t left_out = 0;

	for (size_t i = 0; state && i < BUCKETS; i++)
		left_out += state->buckets[i].left_out;
	left_out += state ? state->unwritten : 0;
	if (left_out)
		log_put_own(log, "%llu more lines were left out", (unsigned long long)left_out);
	if (state) {
		fd_close(&state->own_fd);
		pthread_mutex_destroy(&state->lock);
		free(take_ptr(log->state));
	}
	if (log->form != LOG_PLAIN)
		fd_close(&log->fd);
}

/* ---- from everywhere ---- */

/* begin is where the text begins. */
static void log_write(const struct log *log, const char *fmt, const struct log_text *text, size_t begin, bool limited)
{
	struct log_bucket *bucket;

	if (!log->state) {
		if (write(log->fd, text->line, text->len) < 0) {
			/* There is no other place to report it. */
		}
		return;
	}
	bucket = log_bucket(log->state, fmt, text->line + begin);
	if (!limited || log_may(log->state, bucket, monotonic_ns()))
		log_put_counted(log, bucket, text);
}

static void log_say(const struct log *log, enum log_level level, bool limited, const char *fmt, va_list args) _printf_(4, 0);
static void log_say(const struct log *log, enum log_level level, bool limited, const char *fmt, va_list args)
{
	int saved = errno;
	struct log_text text;
	size_t begin;

	if (!log || level > log->level)
		return;
	if (log->state)
		pthread_mutex_lock(&log->state->lock);
	log_head(log, level, &text);
	begin = text.len;
	errno = saved; /* for %m */
	log_body(&text, fmt, args);
	log_write(log, fmt, &text, begin, limited);
	if (log->state)
		pthread_mutex_unlock(&log->state->lock);
	errno = saved;
}

void log_line(const struct log *log, enum log_level level, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_say(log, level, true, fmt, args);
	va_end(args);
}

void log_each(const struct log *log, enum log_level level, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_say(log, level, false, fmt, args);
	va_end(args);
}
