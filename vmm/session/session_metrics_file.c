/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics in a file (--metrics): a line of JSON now and then, the last one at the end of the machine. A line is never
 * waited for: of a FIFO whose reader is slow or not there, what does not fit is left out and counted. See
 * session_internal.h.
 */
#include "vmm/session/session_internal.h"

#include "core/errand.h"
#include "core/nowait.h"
#include "core/utc.h"
#include "vmm/config/report_options.h"

#include <fcntl.h>
#include <stdio.h>

struct session_metrics_file {
	struct session *session;
	int fd;
	struct nowait_out out;
	struct event_source *timer;
	char *line; /* that is partly written, or NULL */
	size_t len, done;
	uint64_t lost; /* lines, since the last one that began */
	bool told;     /* a message has said that it cannot be written */
};

/* ---- lines ---- */

/* True: nothing is left of the last line. */
static bool session_metrics_file_flush(struct session_metrics_file *file)
{
	while (file->done < file->len) {
		ssize_t n = nowait_write(&file->out, file->line + file->done, file->len - file->done);

		if (n < 0 && n != -EAGAIN && n != -EPIPE && !file->told) {
			file->told = true;
			log_warn(&file->session->log, "--metrics %.200s: %s", file->session->report->metrics.to,
				 strerrordesc_np((int)-n));
		}
		if (n < 0)
			return false;
		file->done += (size_t)n;
	}
	free(take_ptr(file->line));
	file->len = file->done = 0;
	return true;
}

/* A line and its newline; NULL: no memory. */
static char *session_metrics_file_text(const struct session_metrics_file *file)
{
	json_t *metrics = NULL;
	char time[UTC_TEXT], *text, *line = NULL;

	if (file->session->operated.ops->metrics(file->session, &metrics, NULL) == 0) {
		json_object_set_new(metrics, "time", json_string(utc_now(time)));
		if (file->lost)
			json_object_set_new(metrics, "lost", json_integer((json_int_t)file->lost));
	}
	text = json_dumps(metrics, JSON_COMPACT | JSON_REAL_PRECISION(9));
	json_decref(metrics);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

void session_metrics_file_write(struct session_metrics_file *file)
{
	if (!file)
		return;
	if (!session_metrics_file_flush(file)) {
		file->lost++;
		return;
	}
	file->line = session_metrics_file_text(file);
	file->len = file->line ? strlen(file->line) : 0;
	file->lost = file->line ? 0 : file->lost + 1;
	session_metrics_file_flush(file);
}

static void session_metrics_file_tick(void *opaque, uint32_t expirations)
{
	session_metrics_file_write(opaque);
}

/* ---- the file ---- */

/* A FIFO without a reader can be opened only for both directions; then it has one, which does not read. */
static int session_metrics_file_open_path(const char *path)
{
	const int flags = O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int fd = errand_open(path, O_WRONLY | O_CREAT | flags, 0600);

	return fd < 0 && errno == ENXIO ? errand_open(path, O_RDWR | flags, 0) : fd;
}

int session_metrics_file_open(struct session *session, struct session_metrics_file **ret, struct err *err)
{
	const struct report_metrics *wanted = session->report ? &session->report->metrics : NULL;
	struct session_metrics_file *file;
	int code;

	if (!wanted || !wanted->to)
		return 0;
	file = calloc(1, sizeof(*file));
	if (!file)
		return err_sys(err, -ENOMEM, "--metrics");
	file->session = session;
	file->fd = session_metrics_file_open_path(wanted->to);
	file->out = nowait_out(file->fd);
	code = file->fd < 0 ? err_sys(err, -errno, "--metrics %.200s", wanted->to) :
	       event_loop_timer(session->loop, session_metrics_file_tick, file, &file->timer, err);
	if (code) {
		session_metrics_file_close(file);
		return code;
	}
	event_timer_set(file->timer, wanted->every, wanted->every);
	*ret = file;
	return 0;
}

void session_metrics_file_close(struct session_metrics_file *file)
{
	if (!file)
		return;
	event_source_remove(file->timer);
	fd_close(&file->fd);
	free(file->line);
	free(file);
}
