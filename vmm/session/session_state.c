/* SPDX-License-Identifier: Apache-2.0 */
/* What a session's machine does, in one word: for whoever asks, and for the service manager. */
#include "vmm/session/session_internal.h"

const char *session_state(const struct session *session)
{
	if (outgoing_active(session->outgoing))
		return outgoing_report(session->outgoing)->state == MIGRATION_UNRESOLVED ? "unresolved" : "migrating";
	if (snapshot_thread_active(session->snapshot))
		return "saving";
	if (session->waiting)
		return "waiting";
	if (session->arriving)
		return "arriving";
	if (session->resting)
		return "rebooting";
	if (machine_end(session->machine) != MACHINE_RUNNING)
		return "ending";
	if (session->pause.done)
		return "pausing";
	return machine_paused(session->machine) ? "paused" : "running";
}

void session_tell_manager(struct session *session)
{
	if (session->service.connected)
		service_status(&session->service, session_state(session));
}
