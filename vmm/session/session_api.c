/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm api`: a process that speaks HTTP and has no machine until a client starts one (operations.start), which then runs
 * here, on the same loop. A start that fails leaves the process as it was. See session.h.
 */
#include "vmm/session/session_internal.h"

#include "vmm/api/firecracker/firecracker.h"
#include "vmm/jail/seccomp.h"
#include "vmm/machine/start_request.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/session.h"

#include <signal.h>
#include <stdio.h>

#define FILTERED 148 /* what Firecracker ends with when a call is not allowed */

struct serving {
	struct session session;
	struct machine_config config;
	bool asked; /* for a machine; until done */
	bool begun; /* threads of the machine were started: a failure is the end */
	void (*done)(void *opaque, int code, const struct err *err);
	void *opaque;
};

/* As operations.start. The machine is made when the loop has returned. */
static int session_api_asked(struct session *session, struct start_request *request,
			     void (*done)(void *opaque, int code, const struct err *err), void *opaque, struct err *err)
{
	struct serving *serving = container_of(session, struct serving, session);

	if (serving->asked || session->machine)
		return err_set(err, -EBUSY, "there is a machine already");
	serving->asked = true;
	serving->done = done;
	serving->opaque = opaque;
	machine_config_done(&serving->config);
	serving->config = request->config;
	machine_config_init(&request->config);
	session->files = request->files;
	request->files = (struct machine_files){0};
	event_loop_stop(session->loop);
	return 0;
}

/* ---- a start ---- */

/* Another instance may have the name, which its clients do not know. */
static int session_api_claim(struct serving *serving, struct err *err)
{
	int code = rundir_claim(serving->config.name, &serving->session.rundir, err);
	char *name;

	if (code != -EADDRINUSE)
		return code;
	if (asprintf(&name, "vm-%d", getpid()) < 0)
		return err_sys(err, -ENOMEM, "name");
	free(serving->config.name);
	serving->config.name = name;
	return rundir_claim(name, &serving->session.rundir, err);
}

/* The clients of this process do without the control socket. */
static int session_api_open_control(struct serving *serving, struct err *err)
{
	struct session *session = &serving->session;
	int code = session_api_claim(serving, err);

	if (!code)
		return session_open_control(session, err);
	log_warn(&session->log, "%s; other commands do not find this machine", err->text);
	return session_metrics_open(session, err);
}

static int session_api_make(struct serving *serving, struct err *err)
{
	struct session *session = &serving->session;
	int code = session_open_ports(session, err);

	code = code ?: session_api_open_control(serving, err);
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
	struct session *session = &serving->session;

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
	machine_config_done(&serving->config);
}

static int session_api_start(struct serving *serving, struct err *err)
{
	int code = session_api_make(serving, err);

	serving->asked = false;
	if (code && !serving->begun)
		session_api_unmake(serving);
	serving->done(serving->opaque, code, err);
	return code;
}

/* ---- the process ---- */

static int session_api_begin(struct serving *serving, const struct firecracker_options *options, struct err *err)
{
	struct session *session = &serving->session;
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

	while (code && !serving->session.ended && !serving->begun) {
		if (serving->asked)
			code = session_api_start(serving, err);
		else
			event_loop_run(serving->session.loop);
		if (code && code != -EAGAIN && must)
			return code;
	}
	return code;
}

static int session_api_live(struct serving *serving, const struct firecracker_options *options, struct err *err)
{
	struct session *session = &serving->session;
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
		.session = {
			.seccomp = options->seccomp,
			.log = {.fd = STDOUT_FILENO, .level = LOG_INFO, .brackets = true},
			.signal_fd = -1,
		},
	};
	struct session *session = &serving.session;
	int code;

	machine_config_init(&serving.config);
	session->config = &serving.config;
	session->start = session_api_asked;
	seccomp_set_exit(FILTERED);
	log_open(&session->log);
	code = session_api_live(&serving, options, err);
	session->face_code = code;
	session_end(session);
	session_done(session);
	if (!session->abandoned) {
		log_close(&session->log);
		machine_config_done(&serving.config);
	}
	if (session->signal)
		session_api_die(session->signal);
	return code;
}
