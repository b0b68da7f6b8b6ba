/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `mvmm receive`: a session whose machine comes from another host. The target's protocol (migration/target.c) has a
 * thread of its own; its calls are served here on the event loop's thread, like signals and the control socket.
 */
#include "vmm/session/session_internal.h"

#include "core/irq.h"
#include "core/thread.h"
#include "vmm/machine/memory_room.h"
#include "vmm/migration/target.h"
#include "vmm/session/disk_arrivals.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/host_devices_migration.h"
#include "vmm/session/session.h"

#include <stdio.h>
#include <sys/eventfd.h>

struct arrival {
	struct session session;
	struct machine_config config;
	const struct receive_options *options;
	struct migration_target *target;
	struct host_devices_migration *devices; /* until the devices run */
	struct disk_arrivals *disks;            /* the copied disks */
	int cancel_fd;
	pthread_t thread;
	bool over; /* the thread is about to end */
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

static int session_receive_override_each(struct machine_config *config, const char *option,
					 const struct receive_override *texts, size_t count, struct err *err)
{
	int code = 0;

	for (size_t i = 0; !code && i < count; i++)
		code = machine_config_override(config, option, texts[i].text, err);
	return code;
}

/* The ports are this host's, not those of the source. A console of the machine must be connected to something. */
static int session_receive_override_ports(struct machine_config *config, const struct receive_options *options,
					  struct err *err)
{
	const char *console = options->console ?: config->console.kind == PORT_NONE ? NULL : "pty";
	bool stdio = console && strcmp(console, "stdio") == 0;
	int code = console ? machine_config_override(config, "console", console, err) : 0;

	return code ?: machine_config_override(config, "serial", options->serial ?: stdio ? "none" : "stdio", err);
}

static int session_receive_configure(struct arrival *arrival, struct err *err)
{
	const struct receive_options *options = arrival->options;
	struct machine_config *config = &arrival->config;
	int code = machine_offer_config(arrival->session.offer, config, err);

	code = code ?: session_receive_override_each(config, "disk", options->disks, options->disk_count, err);
	code = code ?: session_receive_override_each(config, "net", options->nets, options->net_count, err);
	code = code ?: session_receive_override_each(config, "vfio", options->vfios, options->vfio_count, err);
	if (!code && options->vsock)
		code = machine_config_override(config, "vsock", options->vsock, err);
	if (!code && options->name)
		code = machine_config_override(config, "name", options->name, err);
	code = code ?: session_receive_override_ports(config, options, err);
	if (code)
		return code;
	config->verbose = options->verbose;
	config->quiet = options->quiet;
	return machine_config_finish(config, err);
}

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
	code = code ?: disk_arrivals_create(session->offer, &arrival->config, arrival->options->disks,
					    arrival->options->disk_count, &arrival->disks, err);
	code = code ?: session_make_machine(session, err);
	code = code ?: machine_offer_check(session->offer, session->machine, err);
	code = code ?: host_devices_migration_begin(machine_host_devices(session->machine), arrival->config.name,
						    &arrival->devices, err);
	return code ?: session_open_control(session, err);
}

static int session_receive_do_create(void *opaque, void *argument, struct err *err)
{
	struct arrival *arrival = opaque;
	const struct bytes *offer = argument;
	struct session *session = &arrival->session;
	int code = machine_offer_parse(offer->data, offer->len, &session->offer, err);

	session->arriving = true;
	code = code ?: session_receive_configure(arrival, err) ?: session_receive_make(arrival, err);
	if (code)
		return code;
	err->text[0] = 0; /* from attempts that were not needed */
	log_info(&session->log, "%s is arriving", arrival->config.name);
	if (arrival->config.kernel && access(arrival->config.kernel, R_OK) < 0)
		log_warn(&session->log, "a reboot of the guest will need %s, which this host does not have",
			 arrival->config.kernel);
	return 0;
}

static int session_receive_create(void *opaque, const char *offer, size_t len, char **ready, struct err *err)
{
	struct arrival *arrival = opaque;
	struct bytes bytes = {offer, len};
	int code = session_receive_on_loop(arrival, session_receive_do_create, &bytes, err);

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

static int session_receive_do_start(void *opaque, void *argument, struct err *err)
{
	struct arrival *arrival = opaque;
	struct session *session = &arrival->session;
	int code = machine_lock_disks(session->machine, err);

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
	return 0;
}

static int session_receive_start(void *opaque, struct err *err)
{
	return session_receive_on_loop(opaque, session_receive_do_start, NULL, err);
}

static const struct migration_arrival_ops arrival_ops = {
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

static void *session_receive_thread_main(void *opaque)
{
	struct arrival *arrival = opaque;

	arrival->code = migration_target_run(arrival->target, &arrival->err);
	session_receive_on_loop(arrival, session_receive_do_finish, NULL, NULL);
	return NULL;
}

static int session_receive_start_thread(struct arrival *arrival, struct err *err)
{
	int code = thread_start(&arrival->thread, session_receive_thread_main, arrival, "migration");

	return code ? err_sys(err, code, "the migration's thread") : 0;
}

static int session_receive_listen_for_it(struct arrival *arrival, struct err *err)
{
	struct migration_target_config config = {
		.ops = &arrival_ops, .opaque = arrival, .log = &arrival->session.log, .tls = arrival->options->tls,
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
	if (!config.tls && !address_is_local(&from))
		log_warn(&arrival->session.log,
			 "whoever can connect to this address can send a machine that uses this host's files and "
			 "devices and creates files; --tls DIR accepts known hosts only, and encrypts");
	code = migration_target_create(&config, &arrival->target, err);
	if (!code)
		log_info(&arrival->session.log, "waiting for a machine at %s", migration_target_text(arrival->target));
	return code;
}

static int session_receive_begin(struct arrival *arrival, struct err *err)
{
	int code = event_loop_create(&arrival->session.loop, err);

	session_raise_descriptors();
	code = code ?: session_catch_signals(&arrival->session, err);
	code = code ?: session_receive_listen_for_it(arrival, err);
	if (!code)
		event_loop_claim(arrival->session.loop);
	return code ?: session_receive_start_thread(arrival, err);
}

/* Ended before the machine ran: by a signal, Ctrl-A x, or mvmm stop --force. */
static bool session_receive_ended_early(const struct session *session)
{
	return session->signal || (session->machine && machine_end(session->machine) != MACHINE_RUNNING);
}

/* Waits until the machine runs here, or cannot. */
static void session_receive_await(struct arrival *arrival)
{
	while (!arrival->over && !session_receive_ended_early(&arrival->session))
		event_loop_run(arrival->session.loop);
	eventfd_kick(arrival->cancel_fd);
	pthread_join(arrival->thread, NULL);
	migration_target_destroy(take_ptr(arrival->target));
}

static int session_receive_receive(struct arrival *arrival, struct err *err)
{
	struct session *session = &arrival->session;

	if (session_receive_begin(arrival, err))
		return EXIT_BAD_INPUT;
	session_receive_await(arrival);
	if (!arrival->code)
		return session_live(session, err);
	if (session->signal)
		return EXIT_SIGNAL + session->signal;
	*err = arrival->err;
	return EXIT_FAILED;
}

int session_receive(const struct receive_options *options, struct err *err)
{
	struct arrival arrival = {.options = options, .cancel_fd = -1};
	int code;

	machine_config_init(&arrival.config);
	arrival.config.verbose = options->verbose;
	arrival.config.quiet = options->quiet;
	arrival.session = (struct session){
		.config = &arrival.config,
		.log = {.fd = STDERR_FILENO, .level = machine_config_log_level(&arrival.config), .prefix = "mvmm: "},
		.signal_fd = -1,
	};
	code = session_receive_receive(&arrival, err);
	migration_target_destroy(arrival.target);
	disk_arrivals_destroy(arrival.disks);
	host_devices_migration_end(arrival.devices);
	session_end(&arrival.session);
	fd_close(&arrival.cancel_fd);
	machine_config_done(&arrival.config);
	return code;
}
