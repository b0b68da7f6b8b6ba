/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: lines of text to one descriptor, passed in where it is needed; there is no global log. Each line is one
 * write(2), so that lines of threads do not mix, and control characters in it are replaced. A NULL log prints nothing.
 *
 * An open log (log_open) can be given to code that a guest drives. A line never waits for the reader of a pipe or a
 * terminal, and a call site that repeats itself, for each device, is limited to 10 lines at once and one every 10 s
 * afterwards. What is left out is counted, and the next line tells the number.
 *
 * In a file, each line begins with the time (UTC), the machine and the thread that says it; systemd's journal gets them
 * as fields (MVMM_MACHINE, MVMM_THREAD).
 */
#pragma once

#include "core/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

enum log_form { LOG_PLAIN, LOG_FILE, LOG_JOURNAL };

struct log_state;

struct log {
	int fd;                  /* not owned, unless the form is FILE or JOURNAL */
	enum log_level level;    /* less important lines are dropped */
	const char *prefix;      /* of each line of the form PLAIN, e.g. "mvmm: "; NULL: none */
	enum log_form form;
	bool brackets;           /* lines begin "2026-11-30T12:00:00.000000000 [web:main] ", whatever the form */
	bool show_level;         /* with brackets: "[web:main:INFO] " */
	struct log_state *state; /* NULL: not open */
};

/* Lines go to the end of a file that may be there already, or to the journal, from now on. Before log_open. -errno. */
int log_to_file(struct log *log, const char *path, struct err *err);
int log_to_journal(struct log *log, struct err *err);

/*
 * An open log goes on in the open file *fd, which is taken, as the form FILE. No other thread uses it meanwhile.
 */
void log_move(struct log *log, int *fd);

/* Opens a log whose other members are set. Without memory it stays as it is. */
void log_open(struct log *log);
/* Writes how many lines were left out, if any, and closes what log_to_... has opened. No other thread uses it any more. */
void log_close(struct log *log);

/* The machine that is told of from now on, in an open log; the name is cut after 63 characters. Any thread. */
void log_set_machine(struct log *log, const char *name);

/* How many lines were left out or lost so far. Any thread. */
uint64_t log_lost(const struct log *log);

/* Logs one line (no newline in fmt). fmt is the call site; the text up to the first colon names the device. */
void log_line(const struct log *log, enum log_level level, const char *fmt, ...) _printf_(3, 4);

/* The same without a limit, for what happens as often as the machine's owner wants. */
void log_each(const struct log *log, enum log_level level, const char *fmt, ...) _printf_(3, 4);

#define log_error(log, ...) log_line(log, LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...) log_line(log, LOG_WARN, __VA_ARGS__)
#define log_info(log, ...) log_line(log, LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_line(log, LOG_DEBUG, __VA_ARGS__)
