/* SPDX-License-Identifier: Apache-2.0 */
/* The door of a session, see door.h: made before its threads are, closed when what the machine needs is open. */
#include "vmm/session/session_internal.h"

int session_make_door(struct session *session, struct err *err)
{
	const struct door_options options = {
		.jail = session->jail, .seccomp = session->seccomp, .log = &session->log,
	};

	return door_create(&options, &session->door, err);
}
