/* SPDX-License-Identifier: Apache-2.0 */
/* See face_metrics.h. */
#include "vmm/api/firecracker/face_metrics.h"

#include "vmm/api/firecracker/face_counts.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#define EVERY_NS 60000000000ull

struct face_metrics {
	struct face *face;
	int fd;
	struct event_source *timer;
	uint64_t missed; /* lines that could not be written since the last one that was */
	uint64_t lost;   /* lines of the log, up to the last one here */
};

static void face_metrics_add(json_t *root, const struct face_counter *counter, const char *what, uint64_t value)
{
	char key[64];

	snprintf(key, sizeof(key), "%s_%s", counter->name, what);
	face_counts_sum(root, counter->group, key, (json_int_t)value);
}

/* Firecracker does not count the failures of GET. */
static void face_metrics_requests(struct face *face, json_t *root)
{
	for (size_t i = 0; i < face->counter_count; i++) {
		struct face_counter *counter = &face->counters[i];

		face_metrics_add(root, counter, "count", counter->count);
		if (strcmp(counter->group, "get_api_requests") != 0)
			face_metrics_add(root, counter, "fails", counter->fails);
		counter->count = counter->fails = 0;
	}
	face_counts_sum(root, "deprecated_api", "deprecated_http_api_calls", (json_int_t)face->deprecated_calls);
	face->deprecated_calls = 0;
}

/* A log in another file counts from 0. */
static void face_metrics_missed(struct face_metrics *metrics, json_t *root)
{
	uint64_t lost = log_lost(metrics->face->log), before = metrics->lost;

	face_counts_sum(root, "logger", "missed_metrics_count", (json_int_t)metrics->missed);
	face_counts_sum(root, "logger", "missed_log_count", (json_int_t)(lost >= before ? lost - before : lost));
	metrics->lost = lost;
}

static json_t *face_metrics_line(struct face_metrics *metrics)
{
	struct face *face = metrics->face;
	struct timespec now;
	json_t *root = json_object();

	clock_gettime(CLOCK_REALTIME, &now);
	json_object_set_new(root, "utc_timestamp_ms", json_integer(now.tv_sec * 1000 + now.tv_nsec / 1000000));
	if (face->metrics.emit_id)
		json_object_set_new(root, "id", json_string(face->options->id));
	face_metrics_requests(face, root);
	face_counts_add(face, root);
	face_metrics_missed(metrics, root);
	return root;
}

int face_metrics_write(struct face_metrics *metrics, struct err *err)
{
	json_t *root = metrics ? face_metrics_line(metrics) : NULL;
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	int code = 0;
	size_t len;
	ssize_t n;

	json_decref(root);
	if (!metrics)
		return 0;
	if (!text)
		return err_sys(err, -ENOMEM, "metrics");
	len = strlen(text);
	text[len] = '\n'; /* where the zero byte was */
	n = write(metrics->fd, text, len + 1);
	if (n != (ssize_t)len + 1)
		code = err_sys(err, n < 0 ? -errno : -EIO, "metrics");
	metrics->missed = code ? metrics->missed + 1 : 0;
	free(text);
	return code;
}

static void face_metrics_tick(void *opaque, uint32_t expirations)
{
	struct face_metrics *metrics = opaque;
	struct err err;

	if (face_metrics_write(metrics, &err))
		log_warn(metrics->face->log, "%s", err.text);
}

int face_metrics_create(struct face *face, const char *path, struct face_metrics **ret, struct err *err)
{
	struct face_metrics *metrics = calloc(1, sizeof(*metrics));
	int code;

	if (!metrics)
		return err_sys(err, -ENOMEM, "metrics");
	*metrics = (struct face_metrics){.face = face, .fd = -1};
	code = face_open(path, O_RDWR | O_APPEND | O_CREAT, &metrics->fd, err);
	code = code ?: event_loop_timer(face->loop, face_metrics_tick, metrics, &metrics->timer, err);
	if (code) {
		fd_close(&metrics->fd);
		free(metrics);
		return code;
	}
	event_timer_set(metrics->timer, EVERY_NS, EVERY_NS);
	*ret = metrics;
	return 0;
}

void face_metrics_destroy(struct face_metrics *metrics)
{
	if (!metrics)
		return;
	face_metrics_write(metrics, NULL);
	event_source_remove(metrics->timer);
	fd_close(&metrics->fd);
	free(metrics);
}
