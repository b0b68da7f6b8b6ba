/* SPDX-License-Identifier: Apache-2.0 */
/* `mvmm restore`, from its options to its exit code: restores at once, or when it is asked to. See session.h. */
#include "vmm/session/session_restore_internal.h"

#include "core/thread.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/restore_disks.h"
#include "vmm/session/session_record.h"

#include <fcntl.h>

struct saving {
	struct restoring *restoring;
	struct err *err;
};

static int session_restore_run_save(void *argument)
{
	const struct saving *saving = argument;

	return session_record_save(saving->restoring->record, machine_memory(saving->restoring->session.machine), saving->err);
}

static int session_restore_run_live(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_live(session, err);

	if (!restoring->record || session->abandoned || session->signal)
		return code;
	return thread_call(session_restore_run_save, &(struct saving){restoring, err}) ? EXIT_FAILED : EXIT_OFF;
}

/* A signal may have been the reason: it cancels a copy of memory, or a wait for a request, which mvmm stop ends, too. */
static int session_restore_run_failed(struct session *session)
{
	session_take_signals(session);
	if (session->signal)
		return EXIT_SIGNAL + session->signal;
	if (session->waiting && machine_end(session->machine) != MACHINE_RUNNING)
		return machine_end(session->machine) == MACHINE_STOPPED ? EXIT_OFF : EXIT_FAILED;
	return EXIT_BAD_INPUT;
}

/* The descriptor that was handed in is not for programs that are started here. */
static bool session_restore_run_open_log(struct restoring *restoring, struct err *err)
{
	const struct restore_options *options = restoring->options;
	const struct arrival_options *here = &options->here;

	restoring->config.verbose = here->verbose;
	restoring->config.quiet = here->quiet;
	if (options->ready_fd >= 0 && fcntl(options->ready_fd, F_SETFD, FD_CLOEXEC) < 0) {
		err_sys(err, -errno, "--ready-fd %d", options->ready_fd);
		return false;
	}
	return session_log_open(&restoring->session, &here->report, here->verbose, here->quiet, err);
}

static void session_restore_run_end(struct restoring *restoring)
{
	session_record_leave(restoring->record);
	host_devices_migration_end(restoring->devices);
	session_end(&restoring->session);
	restore_disks_destroy(take_ptr(restoring->disks));
	session_done(&restoring->session);
	if (restoring->session.abandoned)
		return;
	session_record_destroy(restoring->record);
	log_close(&restoring->session.log);
	machine_config_done(&restoring->config);
	snapshot_close(restoring->snapshot);
}

int session_restore(struct restore_options *options, struct err *err)
{
	struct restoring restoring = {
		.options = options,
		.session = {
			.seccomp = (enum seccomp_mode)options->here.seccomp,
			.log = {.fd = STDERR_FILENO, .prefix = "mvmm: "},
			.signal_fd = -1,
			.kvm_ahead = {-1, -1},
		},
	};
	int code;

	service_open(&restoring.session.service);
	if (!session_jail_enter(&restoring.session, &options->here.jail, options->here.vfio_count > 0, &code, err))
		return code;
	machine_config_init(&restoring.config);
	restoring.session.config = &restoring.config;
	if (session_make_stage(&restoring.session, err) || !session_restore_run_open_log(&restoring, err))
		code = EXIT_BAD_INPUT;
	else if (!(options->wait ? session_restore_wait(&restoring, err) : session_restore_begin(&restoring, err)))
		code = session_restore_run_live(&restoring, err);
	else
		code = session_restore_run_failed(&restoring.session);
	session_restore_run_end(&restoring);
	return code;
}
