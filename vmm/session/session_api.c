/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm api`: a process that speaks HTTP and has no machine until a client starts one (operations.start), which then runs
 * here, on the same loop. A start that fails leaves the process as it was. See session.h.
 */
#include "vmm/session/session_restore_internal.h"

#include "vmm/api/firecracker/firecracker.h"
#include "vmm/jail/seccomp.h"
#include "vmm/machine/start_request.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/restore_disks.h"

#include <signal.h>
#include <stdio.h>

#define FILTERED 148 /* what Firecracker ends with when a call is not allowed */

struct serving {
	struct restoring restoring; /* and the session, whether or not it is of a snapshot */
	struct restore_options options;
	struct start_snapshot snapshot;
	bool asked; /* for a machine; until done */
	bool begun; /* threads of the machine were started: a failure is the end */
	void (*done)(void *opaque, int code, const struct err *err);
	void *opaque;
};

/* As operations.start. The machine is made when the loop has returned. */
static int session_api_asked(struct session *session, struct start_request *request,
			     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	struct serving *serving = container_of(session, struct serving, restoring.session);

	if (serving->asked || session->machine)
		return err_set(err, -EBUSY, "there is a machine already");
	serving->asked = true;
	serving->done = done;
	serving->opaque = opaque;
	machine_config_done(session->config);
	*session->config = request->config;
	machine_config_init(&request->config);
	serving->snapshot = request->snapshot;
	request->snapshot = (struct start_snapshot){0};
	session->files = request->files;
	request->files = (struct machine_files){0};
	event_loop_stop(session->loop);
	return 0;
}

/* ---- a start ---- */

static int session_api_make(struct serving *serving, struct err *err)
{
	struct session *session = &serving->restoring.session;
	int code = session_open_ports(session, err);

	code = code ?: session_folder_claim(session, err);
	code = code ?: session_open_control(session, err);
	code = code ?: session_make_machine(session, err);
	if (!code && !session->door)
		code = session_make_door(session, false, err);
	if (code)
		return code;
	session_keep_ports(session);
	serving->begun = true;
	code = machine_start(session->machine, err);
	return code ?: door_close(session->door, err);
}

/* As if nobody had asked. */
static void session_api_unmake(struct serving *serving)
{
	struct session *session = &serving->restoring.session;

	machine_destroy(take_ptr(session->machine));
	port_close(take_ptr(session->console));
	port_close(take_ptr(session->serial));
	session_folder_done(session);
	session->folder = (struct session_folder){0};
	session_metrics_done(session);
	control_destroy(take_ptr(session->control));
	if (session->rundir)
		session_folder_release(session);
	machine_files_close(&session->files);
	session->files = (struct machine_files){0};
	machine_config_done(session->config);
}

/* ---- a start from a snapshot ---- */

/* A disk may be another one than at the snapshot, as Firecracker's clients have it: they keep them themselves. */
static int session_api_load(struct serving *serving, struct err *err)
{
	const struct start_snapshot *snapshot = &serving->snapshot;
	struct session *session = &serving->restoring.session;
	struct arrival_override nets[OPTION_MAX_ITEMS];
	struct restore_options *options = &serving->options;
	int code;

	for (size_t i = 0; i < snapshot->net_count; i++)
		nets[i].text = snapshot->nets[i];
	*options = (struct restore_options){
		.state = snapshot->state, .memory = snapshot->memory, .memory_mode = snapshot->mode, .ready_fd = -1, .any_disk = true, .paused = snapshot->paused,
		.here = {.name = snapshot->name, .serial = snapshot->serial, .vsock = snapshot->vsock, .clock = snapshot->clock,
			 .nets = nets, .net_count = snapshot->net_count, .seccomp = session->seccomp},
	};
	serving->restoring.options = options;
	serving->begun = true;
	code = session_restore_begin(&serving->restoring, err);
	if (!code && !snapshot->paused) /* also one that was paused at the snapshot */
		code = session->operated.ops->resume(session, err);
	return code;
}

static int session_api_start(struct serving *serving, struct err *err)
{
	int code = serving->snapshot.state ? session_api_load(serving, err) : session_api_make(serving, err);

	serving->asked = false;
	if (code && !serving->begun)
		session_api_unmake(serving);
	serving->done(serving->opaque, code, err);
	return code;
}

/* ---- the process ---- */

static int session_api_begin(struct serving *serving, const struct firecracker_options *options, struct err *err)
{
	struct session *session = &serving->restoring.session;
	int code = event_loop_create(&session->loop, err);

	session_raise_descriptors();
	session_operate(session);
	code = code ?: firecracker_create(session->loop, &session->operated, options, &session->log, &session->face, err);
	code = code ?: session_catch_signals(session, err);
	session->button_pressed = true; /* the first SIGTERM ends it: Firecracker does not catch any */
	return code ?: firecracker_begin(session->face, err);
}

/* Until there is a machine that runs. */
static int session_api_wait(struct serving *serving, bool must, struct err *err)
{
	int code = -EAGAIN;

	while (code && !serving->restoring.session.ended && !serving->begun) {
		if (serving->asked)
			code = session_api_start(serving, err);
		else
			event_loop_run(serving->restoring.session.loop);
		if (code && code != -EAGAIN && must)
			return code;
	}
	return code;
}

static int session_api_live(struct serving *serving, const struct firecracker_options *options, struct err *err)
{
	struct session *session = &serving->restoring.session;
	int code = session_api_begin(serving, options, err) ?: session_api_wait(serving, options->config_file, err);

	if (!code) {
		err->text[0] = 0; /* from attempts that were not needed */
		code = session_live(session, err);
		return code == EXIT_PANIC ? EXIT_OFF : code; /* a guest of Firecracker's tells nobody */
	}
	if (session->ended && !serving->begun)
		err->text[0] = 0;
	return session->signal ? EXIT_SIGNAL + session->signal : EXIT_FAILED;
}

/* Clients see how it ended: by their signal, which Firecracker does not catch. */
static void session_api_die(int signal_number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal_number);
	signal(signal_number, SIG_DFL);
	fflush(stdout);
	raise(signal_number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int session_api(const struct firecracker_options *options, struct err *err)
{
	struct serving serving = {
		.restoring.session = {
			.seccomp = options->seccomp,
			.log = {.fd = STDOUT_FILENO, .level = LOG_INFO, .brackets = true},
			.signal_fd = -1,
			.kvm_ahead = {-1, -1},
		},
	};
	struct session *session = &serving.restoring.session;
	int code;

	machine_config_init(&serving.restoring.config);
	session->config = &serving.restoring.config;
	session->start = session_api_asked;
	seccomp_set_exit(FILTERED);
	log_open(&session->log);
	code = session_api_live(&serving, options, err);
	session->face_code = code;
	session_end(session);
	restore_disks_destroy(take_ptr(serving.restoring.disks));
	session_done(session);
	start_snapshot_done(&serving.snapshot);
	if (!session->abandoned) {
		log_close(&session->log);
		machine_config_done(session->config);
		snapshot_close(serving.restoring.snapshot);
	}
	if (session->signal)
		session_api_die(session->signal);
	return code;
}
