/* SPDX-License-Identifier: Apache-2.0 */
/* See log.h. */
#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_line(const struct log *log, enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = {
		[LOG_ERROR] = "", [LOG_WARN] = "warning: ", [LOG_INFO] = "", [LOG_DEBUG] = "debug: "};
	char line[1024];
	va_list args;
	int head, body, saved = errno;
	size_t len;

	if (!log || level > log->level)
		return;
	head = snprintf(line, sizeof(line) / 2, "%s%s", log->prefix ?: "", words[level]);
	len = MIN((size_t)head, sizeof(line) / 2 - 1);
	va_start(args, fmt);
	body = vsnprintf(line + len, sizeof(line) - len - 1, fmt, args);
	va_end(args);
	len += MIN((size_t)(body < 0 ? 0 : body), sizeof(line) - len - 2);
	line[len++] = '\n';
	if (write(log->fd, line, len) < 0) {
		/* There is no other place to report it. */
	}
	errno = saved;
}
