/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the runtime folder: if somebody removes it (a logout empties $XDG_RUNTIME_DIR, or unmounts it), it is made
 * again, so that commands find the machine. It is looked at now and then: a watch by inotify(7) would cost the end of
 * each machine 10 to 20 ms, for the kernel waits when it is closed.
 */
#include "vmm/session/session_internal.h"

#include <stdio.h>

#include "core/thread.h"

#define LOOK_NS 5000000000ull

/* Once for each time that it cannot be done. */
static void session_folder_failed(struct session *session, const struct err *err)
{
	if (!session->folder.lost)
		log_warn(&session->log,
			 "the runtime folder was removed and cannot be made again (%s); commands do not find this machine "
			 "until it can, which is tried every 5 s", err->text);
	session->folder.lost = true;
}

struct look {
	struct rundir *rundir;
	int fd;
	struct err err;
};

static int session_folder_restore(void *argument)
{
	struct look *look = argument;

	return rundir_restore(look->rundir, &look->fd, &look->err);
}

static void session_folder_look(void *opaque, uint32_t events)
{
	struct session *session = opaque;
	struct look look = {.rundir = session->rundir, .fd = -1};
	int code = thread_call(session_folder_restore, &look);
	_cleanup_(fd_close) int fd = look.fd;
	struct err err = look.err;

	if (code > 0) {
		code = control_listen(session->control, &fd, &err);
		if (!code)
			log_warn(&session->log, "the runtime folder was removed; it is there again");
	}
	if (code < 0)
		session_folder_failed(session, &err);
	else
		session->folder.lost = false;
}

static int session_folder_claim_other(struct session *session, struct err *err)
{
	char *name;

	if (asprintf(&name, "vm-%d", getpid()) < 0)
		return err_sys(err, -ENOMEM, "name");
	free(session->config->name);
	session->config->name = name;
	return rundir_claim(name, &session->rundir, err);
}

int session_folder_claim(struct session *session, struct err *err)
{
	int code = rundir_claim(session->config->name, &session->rundir, err);

	if (!session->start)
		return code;
	if (code == -EADDRINUSE)
		code = session_folder_claim_other(session, err);
	if (code)
		log_warn(&session->log, "%s; other commands do not find this machine", err->text);
	return 0;
}

int session_folder_watch(struct session *session, struct err *err)
{
	int code = event_loop_timer(session->loop, session_folder_look, session, &session->folder.timer, err);

	if (!code)
		event_timer_set(session->folder.timer, LOOK_NS, LOOK_NS);
	return code;
}

void session_folder_done(struct session *session)
{
	event_source_remove(session->folder.timer);
}

static int session_folder_do_release(void *argument)
{
	rundir_release(argument);
	return 0;
}

void session_folder_release(struct session *session)
{
	thread_call(session_folder_do_release, take_ptr(session->rundir));
}
