/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for the requests of a machine's devices: a pause, and the end. The event loop runs meanwhile, so that the
 * machine can be asked about and ended whatever its storage does. Also tells what is in progress with the machine.
 */
#include "vmm/session/session_internal.h"

#include "core/monotonic.h"

/* How long a pause waits: shorter than the timeout of a guest's watchdog. */
#define PAUSE_MS 10000
#define POLL_NS 2000000u

/* At the end: when the user is told what it waits for, and how long an order to end waits. */
#define TELL_MS 1000
#define FORCED_MS 1000

/* ---- what is in progress ---- */

int session_check_settled(const struct session *session, struct err *err)
{
	if (session->waiting)
		return err_set(err, -EBUSY, "waits with a snapshot; mvmm restore --spare %s makes it a machine",
			       session->config->name);
	if (session->arriving)
		return err_set(err, -EBUSY, "is still arriving from another host");
	if (session->resting)
		return err_set(err, -EBUSY, "has rebooted too often and waits for its next start");
	if (machine_end(session->machine) != MACHINE_RUNNING)
		return err_set(err, -ESHUTDOWN, "is ending");
	if (session_pausing(session))
		return err_set(err, -EBUSY, "is being paused; mvmm resume undoes that");
	if (snapshot_thread_active(session->snapshot))
		return err_set(err, -EBUSY, "is being written to a snapshot; Ctrl-C in mvmm snapshot cancels that");
	if (!outgoing_active(session->outgoing))
		return 0;
	if (outgoing_report(session->outgoing)->state == MIGRATION_UNRESOLVED)
		return err_set(err, -EBUSY,
			       "may run on another host already; mvmm migrate --resolve continue|end decides");
	return err_set(err, -EBUSY, "is being migrated; mvmm migrate --cancel cancels that");
}

/* ---- a pause ---- */

bool session_pausing(const struct session *session)
{
	return session->pause.done;
}

static void session_pause_finish(struct session *session, int code, const struct err *err)
{
	const struct session_pause pause = session->pause;

	event_source_remove(pause.timer);
	session->pause = (struct session_pause){0};
	session_tell_manager(session);
	if (!code)
		session_event(session, SESSION_PAUSED, NULL);
	pause.done(pause.opaque, code, err);
}

static void session_pause_on_timer(void *opaque, uint32_t expirations)
{
	struct session *session = opaque;
	struct err err;
	int code = machine_pause(session->machine, session->pause.deadline, &err);

	if (code != -EINPROGRESS)
		session_pause_finish(session, code, &err);
}

int session_pause_begin(struct session *session, void (*done)(void *opaque, int code, const struct err *err),
			void *opaque, struct err *err)
{
	struct session_pause pause = {.done = done, .opaque = opaque, .deadline = monotonic_ms() + PAUSE_MS};
	bool paused = machine_paused(session->machine);
	int code = machine_pause(session->machine, pause.deadline, err);

	if (code == 0) {
		session_tell_manager(session);
		if (!paused)
			session_event(session, SESSION_PAUSED, NULL);
		done(opaque, 0, NULL);
	}
	if (code != -EINPROGRESS)
		return code;
	code = event_loop_timer(session->loop, session_pause_on_timer, session, &pause.timer, err);
	if (code) {
		machine_unpause(session->machine);
		return err_prefix(err, code, "cannot be paused");
	}
	session->pause = pause;
	event_timer_set(pause.timer, POLL_NS, POLL_NS);
	return 0;
}

void session_pause_cancel(struct session *session, const char *reason)
{
	struct err err;

	if (!session_pausing(session))
		return;
	machine_unpause(session->machine);
	session_pause_finish(session, err_set(&err, -ECANCELED, "cannot be paused: %s", reason), &err);
}

/* ---- a disk with on-error=stop ---- */

static void session_pause_for_disk_done(void *opaque, int code, const struct err *err)
{
	const struct session *session = opaque;

	if (code)
		log_warn(&session->log, "%s", err->text);
	else
		log_warn(&session->log, "the machine is paused because a disk failed; mvmm resume %s tries it again",
			 session->config->name);
}

/* A migration cannot take the failed requests along. When it has ended, this is called again. */
void session_stop_for_disk(struct session *session)
{
	struct err err;

	session->disk_failed = outgoing_active(session->outgoing) || snapshot_thread_active(session->snapshot);
	snapshot_thread_cancel(session->snapshot, "a disk of the machine failed", NULL);
	if (session->disk_failed)
		outgoing_cancel(session->outgoing, "a disk of the machine failed", NULL);
	else if (!session->arriving && machine_end(session->machine) == MACHINE_RUNNING &&
		 !machine_paused(session->machine) && !session_pausing(session) &&
		 session_pause_begin(session, session_pause_for_disk_done, session, &err))
		log_warn(&session->log, "%s", err.text);
}

/* ---- the end ---- */

void session_force(struct session *session)
{
	if (!session->forced_until)
		session->forced_until = monotonic_ms() + FORCED_MS;
}

void session_stop_machine(struct session *session)
{
	session->ended = true;
	session_force(session);
	if (session->machine)
		machine_stop(session->machine);
	event_loop_stop(session->loop);
}

struct settling {
	struct session *session;
	bool committed; /* its migration: it ends by itself, and only it knows where the guest runs */
	bool told, over;
	int64_t tell;
};

static bool session_pause_settled(struct session *session, struct err *err)
{
	int code = machine_settle(session->machine, err);

	if (outgoing_at_work(session->outgoing))
		code = err_set(err, -EINPROGRESS, "the migration has not ended");
	if (snapshot_thread_at_work(session->snapshot))
		code = err_set(err, -EINPROGRESS, "the snapshot has not ended");
	return code == 0;
}

static bool session_pause_must_wait(const struct settling *settling)
{
	const struct session *session = settling->session;

	return (settling->committed && outgoing_at_work(session->outgoing)) || !session->forced_until ||
	       monotonic_ms() < session->forced_until;
}

/* All of it is on the loop: then no thread that calls the loop comes in between. */
static void session_pause_on_tick(void *opaque, uint32_t expirations)
{
	struct settling *settling = opaque;
	struct session *session = settling->session;
	struct err err;

	settling->over = session_pause_settled(session, &err);
	if (!settling->over && !session_pause_must_wait(settling)) {
		session->abandoned = settling->over = true;
		log_error(&session->log, "%s; what it has not done is cancelled", err.text);
	} else if (!settling->over && !settling->told && monotonic_ms() >= settling->tell) {
		settling->told = true;
		log_warn(&session->log, "%s; waiting for it; a signal or mvmm stop --force ends this", err.text);
	}
	if (settling->over)
		event_loop_stop(session->loop);
}

bool session_settle(struct session *session, const char *reason)
{
	struct settling settling = {
		.session = session,
		.committed = outgoing_cancel(session->outgoing, reason, NULL) == -EBUSY,
		.tell = monotonic_ms() + TELL_MS,
	};
	struct event_source *timer;
	struct err err;

	snapshot_thread_cancel(session->snapshot, reason, NULL);
	session_pause_cancel(session, reason);
	if (event_loop_timer(session->loop, session_pause_on_tick, &settling, &timer, &err)) {
		log_error(&session->log, "%s", err.text);
		session->abandoned = true;
		return false;
	}
	event_timer_set(timer, 1, POLL_NS);
	while (!settling.over)
		event_loop_run(session->loop);
	event_source_remove(timer);
	return !session->abandoned;
}
