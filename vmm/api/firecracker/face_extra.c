/* SPDX-License-Identifier: Apache-2.0 */
/* See face_extra.h. What a client of events does not read in time is lost to it, and the next one says how many were. */
#include "vmm/api/firecracker/face_extra.h"

#include "vmm/machine/metrics_text.h"

int face_extra_metrics(struct face_request *request, struct err *err)
{
	const struct operated *operated = request->face->operated;
	json_t *metrics;
	FILE *out;
	size_t len;
	int code = operated->ops->metrics(operated->session, &metrics, err);

	if (code)
		return code;
	out = open_memstream(&request->text, &len);
	if (out) {
		metrics_text_write(json_object_get(metrics, "families"), json_string_value(json_object_get(metrics, "name")), out);
		fclose(out);
	}
	json_decref(metrics);
	return out && request->text ? 0 : err_sys(err, -ENOMEM, "metrics");
}

/* ---- events ---- */

struct events {
	const struct operated *operated;
	struct http_call *call;
	struct event_watcher watcher;
	json_int_t lost;
};

static void face_extra_tell(void *opaque, const json_t *event)
{
	struct events *events = opaque;
	json_t *copy = json_copy((json_t *)event);
	json_int_t lost = events->lost;
	char *text;

	if (copy && lost)
		json_object_set_new(copy, "lost", json_integer(lost));
	text = copy ? json_dumps(copy, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
	json_decref(copy);
	events->lost = 0; /* a client that is found to have gone frees events */
	if (text)
		text[strlen(text)] = '\n'; /* where the zero byte was */
	if (!text || !http_stream_send(events->call, text, strcspn(text, "\n") + 1))
		events->lost = lost + 1;
	free(text);
}

static void face_extra_gone(void *opaque)
{
	struct events *events = opaque;

	events->operated->ops->unwatch_events(events->operated->session, &events->watcher);
	free(events);
}

int face_extra_events(struct face_request *request, struct err *err)
{
	const struct operated *operated = request->face->operated;
	struct events *events = calloc(1, sizeof(*events));
	static const char none[] = "{\"error\":\"out of memory\"}\n";

	if (!events)
		return err_sys(err, -ENOMEM, "events");
	*events = (struct events){
		.operated = operated, .call = request->call, .watcher = {.event = face_extra_tell, .opaque = events},
	};
	if (!http_stream(request->call, "application/x-ndjson", face_extra_gone, events)) {
		free(events);
		face_free(request);
		return FACE_LATER;
	}
	face_free(request);
	if (operated->ops->watch_events(operated->session, &events->watcher, NULL)) /* it was not told anything yet */
		http_stream_send(events->call, none, sizeof(none) - 1);
	return FACE_LATER;
}
