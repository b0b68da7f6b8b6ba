/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: lines of text to one descriptor, passed in where it is needed; there is no global log. Each line is one
 * write(2), so that lines of threads do not mix. A NULL log prints nothing.
 */
#pragma once

#include "core/util.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log {
	int fd;               /* not owned */
	enum log_level level; /* less important lines are dropped */
	const char *prefix;   /* of each line, e.g. "mvmm: "; NULL: none */
};

/* Logs one line (no newline in fmt). */
void log_line(const struct log *log, enum log_level level, const char *fmt, ...) _printf_(3, 4);

#define log_error(log, ...) log_line(log, LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...) log_line(log, LOG_WARN, __VA_ARGS__)
#define log_info(log, ...) log_line(log, LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_line(log, LOG_DEBUG, __VA_ARGS__)
