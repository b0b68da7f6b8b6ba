/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: lines of text to one descriptor, passed in where it is needed; there is no global log. Each line is one
 * write(2), so that lines of threads do not mix. A NULL log prints nothing.
 *
 * An open log (log_open) can be given to code that a guest drives. A line never waits for the reader of a pipe or a
 * terminal, and a call site that repeats itself, for each device, is limited to 10 lines at once and one every 10 s
 * afterwards. What is left out is counted, and the next line tells the number.
 */
#pragma once

#include "core/util.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_state;

struct log {
	int fd;                  /* not owned */
	enum log_level level;    /* less important lines are dropped */
	const char *prefix;      /* of each line, e.g. "mvmm: "; NULL: none */
	struct log_state *state; /* NULL: not open */
};

/* Opens a log whose other members are set. Without memory it stays as it is. */
void log_open(struct log *log);
/* Writes how many lines were left out, if any. No other thread uses the log any more. */
void log_close(struct log *log);

/* Logs one line (no newline in fmt). fmt is the call site; the text up to the first colon names the device. */
void log_line(const struct log *log, enum log_level level, const char *fmt, ...) _printf_(3, 4);

#define log_error(log, ...) log_line(log, LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...) log_line(log, LOG_WARN, __VA_ARGS__)
#define log_info(log, ...) log_line(log, LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_line(log, LOG_DEBUG, __VA_ARGS__)
