/* SPDX-License-Identifier: Apache-2.0 */
/* See control_events.h. What a client does not read in time is lost to it, and the next event that it gets says how many were. */
#include "vmm/control/control_events.h"

struct control_events {
	const struct operated *machine;
	struct control_call *call;
	struct event_watcher watcher;
	json_int_t lost; /* events, since the last one that the client got */
};

static void control_events_tell(void *opaque, const json_t *event)
{
	struct control_events *events = opaque;
	json_t *copy = json_copy((json_t *)event);
	json_int_t lost = events->lost;

	if (copy && lost)
		json_object_set_new(copy, "lost", json_integer(lost));
	events->lost = 0; /* a client that is found to have gone frees events */
	if (!copy || !control_progress(events->call, json_pack("{s:o}", "event", copy)))
		events->lost = lost + 1;
}

static void control_events_gone(void *opaque)
{
	struct control_events *events = opaque;

	events->machine->ops->unwatch_events(events->machine->session, &events->watcher);
	control_reply(events->call, NULL);
	free(events);
}

void control_events_call(void *opaque, struct control_call *call, const json_t *parameters)
{
	struct control_events *events = calloc(1, sizeof(*events));
	struct err err;

	if (!events || !control_wants_more(call)) {
		err_set(&err, -EINVAL, events ? "Events: the request needs \"more\"" : "out of memory");
		free(events);
		control_fail(call, &err);
		return;
	}
	*events = (struct control_events){
		.machine = opaque, .call = call, .watcher = {.event = control_events_tell, .opaque = events},
	};
	control_watch_client(call, control_events_gone, events);
	if (events->machine->ops->watch_events(events->machine->session, &events->watcher, &err) == 0)
		return;
	control_watch_client(call, NULL, NULL);
	control_fail(call, &err);
	free(events);
}
