/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of a session for snapshots of its machine. See session_internal.h and snapshot_thread.h. */
#include "vmm/session/session_internal.h"

#include "vmm/machine/slots.h"
#include "vmm/session/snapshot_thread.h"
#include "vmm/snapshot/snapshot_take.h"
#include "vmm/snapshot/track.h"

static void session_snapshot_stop(void *opaque)
{
	struct session *session = opaque;

	session_stop_machine(session);
}

static void session_snapshot_stays(void *opaque)
{
	struct session *session = opaque;

	session_tell_manager(session);
	if (session->disk_failed)
		session_stop_for_disk(session);
}

static int session_snapshot_need_track(struct session *session, struct err *err)
{
	struct machine *machine = session->machine;

	if (session->track)
		return 0;
	return track_create(machine_memory(machine), machine_dirty(machine), session->restored ? session->restored_id : NULL,
			    &session->track, err);
}

int session_snapshot(struct session *session, const struct snapshot_request *request, struct snapshot_files *files,
		     const struct snapshot_reply *reply, struct err *err)
{
	struct snapshot_thread_host host = {
		.loop = session->loop, .log = &session->log, .machine = session->machine, .files = &session->files,
		.config = session->config, .stop = session_snapshot_stop, .stays = session_snapshot_stays,
		.changed = session_events_snapshot,
		.opaque = session,
	};
	int code = session_check_settled(session, err);

	code = code ?: snapshot_files_check(files, err);
	code = code ?: slots_check_free(machine_slots(session->machine), err);
	code = code ?: machine_check_disks(session->machine, err);
	code = code ?: session_snapshot_need_track(session, err);
	if (code)
		return code;
	host.track = session->track;
	snapshot_thread_destroy(take_ptr(session->snapshot), NULL); /* only its report was needed */
	code = snapshot_thread_create(&host, request, files, reply, &session->snapshot, err);
	session_tell_manager(session);
	return code;
}

int session_snapshot_commit(struct session *session, const char *id, struct err *err)
{
	return snapshot_thread_commit(session->snapshot, id, err);
}

int session_snapshot_cancel(struct session *session, const char *reason, struct err *err)
{
	return snapshot_thread_cancel(session->snapshot, reason, err);
}
