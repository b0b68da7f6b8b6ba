/* SPDX-License-Identifier: Apache-2.0 */
/* See source_internal.h: what can end a migration while its thread waits or sends, and what is told of it. */
#include "vmm/migration/source_internal.h"

#include <poll.h>

#include "core/monotonic.h"

void source_tell(struct migration_source *source, enum migration_state state)
{
	source->report->state = state;
	source->report->disk_left = disk_sender_left(source->disks);
	source->report->disk_sent = disk_sender_sent(source->disks);
	source->config.tell(source->config.opaque, source->report);
}

int source_check_cancelled(struct migration_source *source, struct err *err)
{
	int code = 0;

	pthread_mutex_lock(&source->lock);
	if (source->reason[0])
		code = err_set(err, -ECANCELED, "%s", source->reason);
	pthread_mutex_unlock(&source->lock);
	return code;
}

void source_set_deadline(struct migration_source *source, uint64_t span, const char *late)
{
	source->late = late;
	source->span = span;
	deadline_set(&source->deadline, span ? monotonic_ns() + span : 0);
}

/* Reads why the target gives up, while it may not send anything else. */
static int source_watch_target(struct migration_source *source, struct err *err)
{
	struct wire_frame frame;
	int code = channel_check(source->control, err);

	if (code <= 0)
		return code;
	code = channel_receive(source->control, &frame, err);
	return code ?: channel_words(source->control, &frame, err);
}

static int source_watch_devices(struct migration_source *source, struct err *err)
{
	struct pollfd failed = {.events = POLLIN};

	if (!source->device_sender)
		return 0;
	failed.fd = device_sender_fd(source->device_sender);
	return poll(&failed, 1, 0) == 1 ? device_sender_wait(source->device_sender, err) : 0;
}

int source_tick(void *opaque, struct err *err)
{
	struct migration_source *source = opaque;

	return source_check_cancelled(source, err) ?: source_watch_target(source, err) ?:
	       source_watch_devices(source, err) ?: disk_flusher_check(source->flusher, err);
}
