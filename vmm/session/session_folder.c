/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the runtime folder: if somebody removes it (a logout empties $XDG_RUNTIME_DIR), it is made again, so that
 * commands find the machine. What removes it gets a moment to finish; for a minute afterwards the folder is looked at
 * again and again, because a file system that is unmounted or mounted there causes no event. If the user has no inotify
 * instance left, it is always looked at.
 */
#include "vmm/session/session_internal.h"

#include <sys/epoll.h>

#define MOMENT 100000000ull
#define AGAIN 2000000000ull
#define LOOKS 30u

static void session_folder_on_event(void *opaque, uint32_t events)
{
	struct session *session = opaque;

	session->folder.looks = LOOKS;
	event_timer_set(session->folder.timer, MOMENT, 0);
}

/* Once for each time that it cannot be done. */
static void session_folder_failed(struct session *session, const struct err *err)
{
	if (!session->folder.lost)
		log_warn(&session->log,
			 "the runtime folder was removed and cannot be made again (%s); commands do not find this machine "
			 "until it can, which is tried every 2 s", err->text);
	session->folder.lost = true;
	session->folder.looks = LOOKS;
}

static void session_folder_look(void *opaque, uint32_t events)
{
	struct session *session = opaque;
	_cleanup_(fd_close) int fd = -1;
	struct err err = {""};
	int code = rundir_restore(session->rundir, &fd, &err);

	if (code > 0) {
		code = control_listen(session->control, &fd, &err);
		if (!code)
			log_warn(&session->log, "the runtime folder was removed; it is there again");
	}
	if (code < 0)
		session_folder_failed(session, &err);
	else
		session->folder.lost = false;
	if (!session->folder.source || session->folder.looks--)
		event_timer_set(session->folder.timer, AGAIN, 0);
}

int session_folder_watch(struct session *session, struct err *err)
{
	int fd = rundir_watch(session->rundir);
	int code = event_loop_timer(session->loop, session_folder_look, session, &session->folder.timer, err);

	if (code)
		return code;
	if (fd < 0) {
		event_timer_set(session->folder.timer, AGAIN, 0);
		return 0;
	}
	return event_loop_watch(session->loop, fd, EPOLLIN | EPOLLET, session_folder_on_event, session,
				&session->folder.source, err);
}

void session_folder_done(struct session *session)
{
	event_source_remove(session->folder.source);
	event_source_remove(session->folder.timer);
}
