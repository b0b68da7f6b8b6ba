/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm receive`: a session whose machine comes from another host. The target's protocol (migration/target.c) has a
 * thread of its own; its calls are served here on the event loop's thread, like signals and the control socket.
 */
#include "vmm/session/session_internal.h"

#include "core/irq.h"
#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/machine/memory_room.h"
#include "vmm/migration/target.h"
#include "vmm/session/arrival_config.h"
#include "vmm/session/disk_arrivals.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/session.h"

#include <stdio.h>
#include <sys/eventfd.h>

#define LEAVE_MS 1000 /* for a thread that was told to end */

struct arrival {
	struct session session;
	struct machine_config config;
	struct receive_options *options;
	struct migration_target *target;
	struct host_devices_migration *devices; /* until the devices run */
	struct disk_arrivals *disks;            /* the copied disks */
	int cancel_fd;
	pthread_t threads[2]; /* one waits for a machine, the other one receives it behind the door */
	unsigned int thread_count;
	bool over; /* the last one is about to end */
	int code;
	struct err err;
};

/* ---- from the migration's thread to the loop's ---- */

static int session_receive_on_loop(void *opaque, int (*fn)(void *opaque, void *argument, struct err *err),
				   void *argument, struct err *err)
{
	struct arrival *arrival = opaque;

	return event_loop_ask(arrival->session.loop, fn, arrival, argument, err);
}

struct bytes {
	const void *data;
	size_t len;
};

/* ---- the machine of an offer ---- */

static int session_receive_make(struct arrival *arrival, struct err *err)
{
	struct session *session = &arrival->session;
	int code = rundir_claim(arrival->config.name, &session->rundir, err);

	if (code == -EADDRINUSE)
		return err_set(err, code,
			       "a machine named %s runs there already; choose another name with mvmm receive --name",
			       arrival->config.name);
	code = code ?: session_open_ports(session, err);
	code = code ?: machine_offer_check_room(session->offer, &arrival->config, memory_room(""), err);
	code = code ?: disk_arrivals_create(session->offer, &arrival->config, arrival->options->here.disks,
					    arrival->options->here.disk_count, &arrival->disks, err);
	code = code ?: session_make_machine(session, err);
	code = code ?: machine_offer_check(session->offer, session->machine, err);
	code = code ?: host_devices_migration_begin(machine_host_devices(session->machine), arrival->config.name,
						    HOST_DEVICES_MIGRATE, &arrival->devices, err);
	code = code ?: session_open_control(session, err);
	code = code ?: session_jail_close(session, err);
	return code ?: door_close(session->door, err);
}

static int session_receive_do_create(void *opaque, void *argument, struct err *err)
{
	struct arrival *arrival = opaque;
	struct session *session = &arrival->session;
	int code = machine_offer_read(argument, &session->offer, err);

	session->arriving = true;
	code = code ?: arrival_config_make(session->offer, arrival->options, &arrival->config, err);
	code = code ?: session_receive_make(arrival, err);
	if (code)
		return code;
	err->text[0] = 0; /* from attempts that were not needed */
	session_tell_manager(session);
	log_info(&session->log, "%s is arriving", arrival->config.name);
	if (!arrival->config.kernel && arrival->config.on_reboot == ON_REBOOT_REBOOT)
		log_warn(&session->log, "a reboot of the guest will end the machine; mvmm receive --kernel FILE names "
					"what to boot then");
	return 0;
}

/* The stage waits for nothing but this, and is gone before the door. */
static int session_receive_parse(void *opaque, const char *text, size_t len, json_t **ret, struct err *err)
{
	const struct arrival *arrival = opaque;

	return json_stage_parse(arrival->session.stage, text, len, ret, err);
}

static int session_receive_create(void *opaque, json_t *offer, char **ready, struct err *err)
{
	struct arrival *arrival = opaque;
	int code = session_receive_on_loop(arrival, session_receive_do_create, offer, err);

	if (!code && asprintf(ready, "{\"name\":\"%s\"}", arrival->config.name) < 0)
		code = err_sys(err, -ENOMEM, "the reply");
	return code;
}

static struct guest_memory *session_receive_memory(void *opaque)
{
	struct arrival *arrival = opaque;

	return machine_memory(arrival->session.machine);
}

static size_t session_receive_devices(void *opaque, struct vfio_migration *const **ret)
{
	struct arrival *arrival = opaque;

	return host_devices_migration_group(arrival->devices, ret);
}

static size_t session_receive_disks(void *opaque, const struct disk_target **ret)
{
	struct arrival *arrival = opaque;

	return disk_arrivals_get(arrival->disks, ret);
}

/* A call of machine_load_trial or machine_load. */
struct state_call {
	int (*fn)(struct machine *machine, const void *state, size_t len, struct err *err);
	struct bytes state;
};

static int session_receive_do_state(void *opaque, void *argument, struct err *err)
{
	struct arrival *arrival = opaque;
	const struct state_call *call = argument;

	return call->fn(arrival->session.machine, call->state.data, call->state.len, err);
}

static int session_receive_try(void *opaque, const void *state, size_t len, struct err *err)
{
	struct state_call call = {machine_load_trial, {state, len}};

	return session_receive_on_loop(opaque, session_receive_do_state, &call, err);
}

static int session_receive_load(void *opaque, const void *state, size_t len, struct err *err)
{
	struct state_call call = {machine_load, {state, len}};

	return session_receive_on_loop(opaque, session_receive_do_state, &call, err);
}

/* Ended before the machine ran: by a signal, Ctrl-A x, or mvmm stop --force. */
static bool session_receive_ended_early(const struct session *session)
{
	return session->signal || (session->machine && machine_end(session->machine) != MACHINE_RUNNING);
}

/* A user who has ended this side before the guest runs here ends nothing but this side: the source goes on. */
static int session_receive_do_start(void *opaque, void *argument, struct err *err)
{
	struct arrival *arrival = opaque;
	struct session *session = &arrival->session;
	int code;

	session_take_signals(session);
	if (session_receive_ended_early(session))
		return err_set(err, -ECANCELED, "the target was ended");
	code = machine_lock_disks(session->machine, err);
	if (code)
		return code;
	session_keep_ports(session);
	code = host_devices_migration_run(arrival->devices, err);
	code = code ?: host_devices_migration_check_whole(arrival->devices, err);
	if (!code && machine_offer_paused(session->offer))
		machine_start_paused(session->machine);
	else
		code = code ?: machine_start(session->machine, err);
	if (code) {
		machine_unlock_disks(session->machine);
		return code;
	}
	host_devices_migration_end(take_ptr(arrival->devices));
	disk_arrivals_keep(arrival->disks);
	session->arriving = false;
	session_tell_manager(session);
	return 0;
}

static int session_receive_start(void *opaque, struct err *err)
{
	return session_receive_on_loop(opaque, session_receive_do_start, NULL, err);
}

static const struct migration_arrival_ops arrival_ops = {
	.parse = session_receive_parse,
	.create = session_receive_create,
	.memory = session_receive_memory,
	.devices = session_receive_devices,
	.disks = session_receive_disks,
	.try = session_receive_try,
	.load = session_receive_load,
	.start = session_receive_start,
};

/* ---- its thread and its end ---- */

static int session_receive_do_finish(void *opaque, void *argument, struct err *err)
{
	struct arrival *arrival = opaque;

	arrival->over = true;
	event_loop_stop(arrival->session.loop);
	return 0;
}

static int session_receive_start_thread(struct arrival *arrival, void *(*fn)(void *opaque), struct err *err)
{
	int code = thread_start(&arrival->threads[arrival->thread_count], THREAD_MIGRATION, fn, arrival, "migration");

	arrival->thread_count += !code;
	return code ? err_sys(err, code, "the migration's thread") : 0;
}

static void *session_receive_run_main(void *opaque)
{
	struct arrival *arrival = opaque;

	arrival->code = migration_target_run(arrival->target, &arrival->err);
	session_receive_on_loop(arrival, session_receive_do_finish, NULL, NULL);
	return NULL;
}

/* The thread that asks has rights in a jail, which one that is started now has not. */
static int session_receive_do_go_on(void *opaque, void *argument, struct err *err)
{
	return session_receive_start_thread(opaque, session_receive_run_main, err);
}

static void *session_receive_meet_main(void *opaque)
{
	struct arrival *arrival = opaque;
	int code = migration_target_meet(arrival->target, &arrival->err);

	code = code ?: session_receive_on_loop(arrival, session_receive_do_go_on, NULL, &arrival->err);
	if (!code)
		return NULL;
	arrival->code = code;
	session_receive_on_loop(arrival, session_receive_do_finish, NULL, NULL);
	return NULL;
}

/* Whoever reaches the address can send a machine, and reads and changes what arrives. */
static int session_receive_judge(struct arrival *arrival, const struct address *from, struct err *err)
{
	const struct receive_options *options = arrival->options;

	if (options->tls_peer && !options->tls)
		return err_set(err, -EINVAL, "--tls-peer %.100s: needs --tls DIR, which checks certificates",
			       options->tls_peer);
	if (options->tls || address_is_local(from))
		return 0;
	if (!options->insecure)
		return err_set(err, -EINVAL,
			       "--from %s: whoever reaches this address could send a machine; add --tls DIR, which "
			       "accepts known hosts only and encrypts, or --insecure if you trust the network",
			       options->from);
	log_warn(&arrival->session.log, "--insecure: whoever reaches %s can send a machine, and read the guest's memory",
		 options->from);
	return 0;
}

static int session_receive_listen_for_it(struct arrival *arrival, struct err *err)
{
	struct migration_target_config config = {
		.ops = &arrival_ops, .opaque = arrival, .log = &arrival->session.log, .tls = arrival->options->tls,
		.tls_peer = arrival->options->tls_peer, .tls_helper = arrival->session.tls_helper,
	};
	struct address from;
	int code = address_parse(arrival->options->from, true, &from, err);

	if (code)
		return err_prefix(err, code, "--from");
	arrival->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (arrival->cancel_fd < 0)
		return err_sys(err, -errno, "eventfd");
	config.from = &from;
	config.cancel_fd = arrival->cancel_fd;
	code = session_receive_judge(arrival, &from, err);
	code = code ?: migration_target_create(&config, &arrival->target, err);
	if (!code)
		log_info(&arrival->session.log, "waiting for a machine at %s", migration_target_text(arrival->target));
	return code;
}

static int session_receive_begin(struct arrival *arrival, struct err *err)
{
	int code = session_make_helpers(&arrival->session, arrival->options->tls, err) ?:
		   event_loop_create(&arrival->session.loop, err);

	session_raise_descriptors();
	code = code ?: service_watch(&arrival->session.service, arrival->session.loop, &arrival->session.log, err);
	code = code ?: session_catch_signals(&arrival->session, err);
	code = code ?: session_receive_listen_for_it(arrival, err);
	code = code ?: session_make_door(&arrival->session, true, err);
	if (!code)
		event_loop_claim(arrival->session.loop);
	code = code ?: session_receive_start_thread(arrival, session_receive_meet_main, err);
	if (!code)
		service_ready(&arrival->session.service, "waiting for a machine");
	return code;
}

/* Joins the threads. One that was told to end and waits for the kernel is left to the end of the process: -ETIMEDOUT. */
static int session_receive_join(struct arrival *arrival, struct err *err)
{
	struct timespec until = monotonic_deadline(arrival->over ? -1 : monotonic_ms() + LEAVE_MS);
	unsigned int joined = 0;

	eventfd_kick(arrival->cancel_fd);
	while (joined < arrival->thread_count &&
	       pthread_clockjoin_np(arrival->threads[joined], NULL, CLOCK_MONOTONIC, &until) == 0)
		joined++;
	if (joined == arrival->thread_count)
		return 0;
	arrival->session.abandoned = true;
	return err_set(err, -ETIMEDOUT, "the storage of this host does not answer: what it has not written is cancelled, "
		       "and files that were created for the machine's disks stay");
}

/* Waits until the machine runs here, or cannot. */
static int session_receive_await(struct arrival *arrival, struct err *err)
{
	int code;

	while (!arrival->over && !session_receive_ended_early(&arrival->session))
		event_loop_run(arrival->session.loop);
	code = session_receive_join(arrival, err);
	if (!code)
		migration_target_destroy(take_ptr(arrival->target));
	return code;
}

static int session_receive_receive(struct arrival *arrival, struct err *err)
{
	struct session *session = &arrival->session;

	const struct arrival_options *here = &arrival->options->here;

	if (session_make_stage(session, err) || !session_log_open(session, &here->report, here->verbose, here->quiet, err))
		return EXIT_BAD_INPUT;
	if (session_receive_begin(arrival, err))
		return EXIT_BAD_INPUT;
	if (session_receive_await(arrival, err))
		return session->signal ? EXIT_SIGNAL + session->signal : EXIT_FAILED;
	if (!arrival->code)
		return session_live(session, err);
	if (session->signal)
		return EXIT_SIGNAL + session->signal;
	*err = arrival->err;
	return EXIT_FAILED;
}

static struct arrival *session_receive_new(struct receive_options *options)
{
	struct arrival *arrival = calloc(1, sizeof(*arrival));

	if (!arrival)
		return NULL;
	arrival->options = options;
	arrival->cancel_fd = -1;
	machine_config_init(&arrival->config);
	arrival->config.verbose = options->here.verbose;
	arrival->config.quiet = options->here.quiet;
	arrival->session = (struct session){
		.config = &arrival->config,
		.seccomp = (enum seccomp_mode)options->here.seccomp,
		.log = {.fd = STDERR_FILENO, .prefix = "mvmm: "},
		.signal_fd = -1,
		.kvm_ahead = {-1, -1},
	};
	return arrival;
}

static void session_receive_destroy(struct arrival *arrival)
{
	migration_target_destroy(arrival->target);
	disk_arrivals_destroy(arrival->disks);
	host_devices_migration_end(arrival->devices);
	session_end(&arrival->session);
	session_done(&arrival->session);
	if (!arrival->session.abandoned)
		log_close(&arrival->session.log);
	fd_close(&arrival->cancel_fd);
	machine_config_done(&arrival->config);
	free(arrival);
}

int session_receive(struct receive_options *options, struct err *err)
{
	struct arrival *arrival = session_receive_new(options);
	int code;

	if (!arrival) {
		err_sys(err, -ENOMEM, "receive");
		return EXIT_FAILED;
	}
	service_open(&arrival->session.service);
	if (session_jail_enter(&arrival->session, &options->here.jail, options->here.vfio_count > 0, &code, err))
		code = session_receive_receive(arrival, err);
	if (arrival->session.abandoned && arrival->target) /* its thread may still use all of it but the name */
		session_folder_release(&arrival->session);
	else
		session_receive_destroy(arrival);
	return code;
}
