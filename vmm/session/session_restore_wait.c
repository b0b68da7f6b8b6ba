/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm restore --wait`: half of a machine, and a process that waits for what differs of it from the others of its
 * snapshot (name, ports, disks, networks). The request comes by the control socket (operations.restore); when it is
 * replied to, the guest runs.
 */
#include "vmm/session/session_restore_internal.h"

#include "vmm/session/arrival_config.h"
#include "vmm/session/restore_disks.h"

#include <malloc.h>
#include <sys/mman.h>

#define HEAP KIB(64) /* at a time: malloc maps larger pieces */
#define HEAPS 6

/*
 * What a request needs, and what would be brought in by a page fault for each page: code, and as much of the heap as a
 * machine with some devices takes. Failures do not matter.
 */
static void session_restore_wait_touch(void)
{
	extern char __executable_start[], etext[];
	uintptr_t code = align_down((uintptr_t)__executable_start, KIB(4));
	void *pieces[HEAPS];

	mallopt(M_TRIM_THRESHOLD, HEAPS * 2 * HEAP);
	madvise((void *)code, (uintptr_t)etext - code, MADV_POPULATE_READ);
	for (size_t i = 0; i < HEAPS; i++) {
		pieces[i] = malloc(HEAP);
		if (pieces[i])
			explicit_bzero(pieces[i], HEAP);
	}
	for (size_t i = 0; i < HEAPS; i++)
		free(pieces[i]);
}

/* What the request says instead of what the command line of this process says. */
static int session_restore_wait_reconfigure(struct restoring *restoring, const struct restore_request *request,
					    struct machine_config *ret, struct err *err)
{
	const struct arrival_options *ours = &restoring->options->here;
	struct arrival_options here = request->here;
	int code;

	here.kernel = ours->kernel;
	here.initrd = ours->initrd;
	here.clock = ours->clock;
	here.force_cpu = ours->force_cpu;
	here.verbose = ours->verbose;
	here.quiet = ours->quiet;
	machine_config_init(ret);
	code = arrival_config_restore(restoring->session.offer, &here, ret, err);
	if (code)
		machine_config_done(ret);
	return code;
}

/* The disks are those that the asker has opened. */
static int session_restore_wait_take_files(struct session *session, struct restore_request *request, struct err *err)
{
	int code = 0;

	for (size_t i = 0; i < request->file_count && !code; i++)
		if (strcmp(request->files[i].path, ".") != 0)
			code = machine_files_add(&session->files, request->files[i].path, &request->files[i].fd, err);
	return code;
}

static int session_restore_wait_complete(struct restoring *restoring, struct restore_request *request, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_restore_wait_take_files(session, request, err);

	restoring->options->paused |= request->paused;
	code = code ?: session_open_ports(session, err);
	code = code ?: session_complete_machine(session, err);
	code = code ?: session_restore_close_door(restoring, err);
	code = code ?: session_restore_load(restoring, err);
	return code ?: session_restore_start(restoring, err);
}

/*
 * Relative paths are meant from the folder in which the asker is, which is passed as ".". A file that is made goes again
 * if it is not used in the end.
 */
static int session_restore_wait_find_disks(struct restoring *restoring, const struct restore_request *request,
					   const struct machine_config *config, struct err *err)
{
	for (size_t i = 0; i < request->file_count; i++)
		if (strcmp(request->files[i].path, ".") == 0 && fchdir(request->files[i].fd) < 0)
			return err_sys(err, -errno, "the folder that paths start from");
	return session_restore_find_disks(restoring, config, &request->here, err);
}

/* From here on there is no way back to a machine that waits. */
static int session_restore_wait_become(struct restoring *restoring, struct restore_request *request, struct err *err)
{
	int code = session_restore_wait_complete(restoring, request, err);

	restoring->session.waiting = false;
	restoring->failed = code;
	if (code)
		restoring->err = *err;
	event_loop_stop(restoring->session.loop);
	return code;
}

/* As operations.restore, of a session that waits. */
static int session_restore_wait_asked(struct session *session, struct restore_request *request, const char **name,
				      struct err *err)
{
	struct restoring *restoring = container_of(session, struct restoring, session);
	struct machine_config config;
	int code;

	if (snapshot_check_seen(restoring->snapshot, &restoring->seen, err)) {
		restoring->failed = true;
		restoring->err = *err;
		event_loop_stop(session->loop);
		return -ESTALE;
	}
	code = session_restore_wait_reconfigure(restoring, request, &config, err);
	if (code)
		return code;
	restoring->request = request;
	code = session_restore_wait_find_disks(restoring, request, &config, err);
	code = code ?: session_restore_check_asker(restoring, err);
	restoring->request = NULL;
	code = code ?: rundir_rename(session->rundir, config.name, err);
	if (code) {
		restore_disks_destroy(take_ptr(restoring->disks));
		machine_config_done(&config);
		return code;
	}
	machine_config_done(&restoring->config);
	restoring->config = config;
	*name = restoring->config.name;
	return session_restore_wait_become(restoring, request, err);
}

static int session_restore_wait_prepare(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_restore_prepare(restoring, err);

	code = code ?: restore_disks_check_options(&restoring->config, restoring->options, err);
	if (code)
		return code;
	session->waiting = true;
	session->asked = session_restore_wait_asked;
	code = snapshot_see(restoring->snapshot, &restoring->seen, err);
	code = code ?: machine_load_vcpus(session->machine, restoring->snapshot->state->machine.data,
					  restoring->snapshot->state->machine.len, err);
	code = code ?: session_open_control(session, err);
	if (code)
		return code;
	session_restore_wait_touch();
	err->text[0] = 0;
	service_ready(&session->service, "waiting with a snapshot");
	log_info(&session->log, "waiting; mvmm restore --spare %s makes it a machine", restoring->config.name);
	return 0;
}

int session_restore_wait(struct restoring *restoring, struct err *err)
{
	struct session *session = &restoring->session;
	int code = session_restore_wait_prepare(restoring, err);

	while (!code && session->waiting && !restoring->failed && machine_end(session->machine) == MACHINE_RUNNING)
		event_loop_run(session->loop);
	if (restoring->failed)
		*err = restoring->err;
	return code ?: restoring->failed || session->waiting ? -ECANCELED : 0;
}
