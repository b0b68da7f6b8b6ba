/* SPDX-License-Identifier: Apache-2.0 */
/* A log whose lines a test reads, for those who are given one. What does not fit into the pipe is lost. */
#pragma once

#include "core/log.h"
#include "core/util.h"
#include "tests/unit/test.h"

#include <fcntl.h>

struct log_pipe {
	struct log log; /* of any thread until log_pipe_close */
	int end;        /* that is read */
};

#define LOG_PIPE_CLOSED {.log.fd = -1, .end = -1}

/* Also of one that is open: the lines that nobody has read are gone. */
static inline void log_pipe_close(struct log_pipe *pipe)
{
	fd_close(&pipe->log.fd);
	fd_close(&pipe->end);
}

static inline void log_pipe_open(struct log_pipe *pipe, enum log_level level, const char *prefix)
{
	int ends[2];

	log_pipe_close(pipe);
	CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	pipe->log = (struct log){.fd = ends[1], .level = level, .prefix = prefix};
	pipe->end = ends[0];
}

/* The lines since the last call, in one string; "" if there are none. Valid until the next call. */
static inline const char *log_pipe_read(struct log_pipe *pipe)
{
	static char text[4096];
	ssize_t len = read(pipe->end, text, sizeof(text) - 1);

	text[MAX(len, 0)] = 0;
	return text;
}
