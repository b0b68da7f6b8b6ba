/* SPDX-License-Identifier: Apache-2.0 */
/* See session.h. */
#include "vmm/session/session.h"

#include "core/helpers.h"
#include "core/monotonic.h"
#include "core/thread.h"
#include "vmm/api/firecracker/firecracker.h"
#include "vmm/jail/jail.h"
#include "vmm/session/exit_code.h"
#include "vmm/session/session_internal.h"
#include "vmm/snapshot/track.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

/* ---- descriptors ---- */

/* The soft limit is small for the sake of programs that use select(2). */
void session_raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- signals ---- */

/* Whether there is a guest to press it for. A migration may have paused it for a moment. */
static bool session_may_press(const struct session *session)
{
	if (!session->machine || session->arriving || machine_end(session->machine) != MACHINE_RUNNING)
		return false;
	return !machine_paused(session->machine) ||
	       snapshot_thread_active(session->snapshot) ||
	       (outgoing_active(session->outgoing) &&
		outgoing_report(session->outgoing)->state != MIGRATION_UNRESOLVED);
}

static void session_on_term(struct session *session)
{
	struct err err;

	session->button_pressed = true;
	if (session_press_button(session, &err))
		log_warn(&session->log, "the machine %s; another SIGTERM ends it here", err.text);
	else
		log_info(&session->log, "pressing the power button; another SIGTERM ends the machine");
}

/* The first SIGTERM presses the power button; the second one, like the other signals, ends the machine. */
static void session_on_signal(void *opaque, uint32_t events)
{
	struct session *session = opaque;
	struct signalfd_siginfo info;

	if (read(session->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGTERM && !session->button_pressed && session_may_press(session)) {
		session_on_term(session);
		return;
	}
	session->signal = (int)info.ssi_signo;
	session_stop_machine(session);
}

/* A signal that the starter has ignored (nohup, a shell's background job) stays ignored. */
static void session_catch_signal(sigset_t *set, int signal)
{
	struct sigaction found;

	if (sigaction(signal, NULL, &found) == 0 && found.sa_handler != SIG_IGN)
		sigaddset(set, signal);
}

void session_take_signals(struct session *session)
{
	struct pollfd waiting = {.fd = session->signal_fd, .events = POLLIN};

	while (poll(&waiting, 1, 0) == 1 && waiting.revents == POLLIN)
		session_on_signal(session, EPOLLIN);
}

int session_catch_signals(struct session *session, struct err *err)
{
	static const int caught[] = {SIGTERM, SIGINT, SIGHUP};
	sigset_t set;
	int code;

	signal(SIGPIPE, SIG_IGN); /* the reader of our output may exit */
	signal(SIGXFSZ, SIG_IGN); /* an output file that has reached its limit is not the end */
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		session_catch_signal(&set, caught[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	session->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (session->signal_fd < 0)
		return err_sys(err, -errno, "signals");
	code = event_loop_watch(session->loop, session->signal_fd, EPOLLIN, session_on_signal, session,
				&session->signals, err);
	return code ? err_prefix(err, code, "signals") : 0;
}

static void session_on_leave(void *opaque)
{
	session_stop_machine(opaque);
}

/* ---- ports ---- */

static void session_serial_changed(void *opaque, int in_fd, int out_fd)
{
	struct session *session = opaque;

	if (session->machine)
		machine_serial_fds(session->machine, in_fd, out_fd);
}

int session_open_ports(struct session *session, struct err *err)
{
	const struct machine_config *config = session->config;
	const struct port_events serial = {.changed = session_serial_changed, .leave = session_on_leave,
					   .opaque = session};
	const struct port_events console = {.leave = session_on_leave, .opaque = session};
	int code = port_open(&config->serial, "--serial", session->loop, &session->log, &serial, &session->serial, err);

	return code ?: port_open(&config->console, "--console", session->loop, &session->log, &console,
				 &session->console, err);
}

void session_keep_ports(struct session *session)
{
	port_keep(session->serial);
	port_keep(session->console);
}

/* ---- the machine ---- */

static void session_disk_failed(void *opaque)
{
	session_stop_for_disk(opaque);
}

static void session_disk_error(void *opaque, const char *id, const struct virtio_blk_health *health)
{
	session_events_disk(opaque, id, health);
}

static bool session_memory_lost(void *opaque, bool fault)
{
	const struct session *session = opaque;

	return restore_memory_is_lost(session->memory, fault);
}

static int session_out(const struct session *session, int port_fd)
{
	return session->out_fd ? *session->out_fd : port_fd;
}

static struct machine_host session_host(struct session *session)
{
	struct restore_memory *memory = session->memory;

	return (struct machine_host){
		.loop = session->loop,
		.log = &session->log,
		.files = &session->files,
		.identity = &session->identity,
		.serial_in = session->serial ? port_in(session->serial) : -1, /* none before they are opened */
		.serial_out = session->serial ? session_out(session, port_out(session->serial)) : -1,
		.console_in = session->console ? port_in(session->console) : -1,
		.console_out = !session->console || port_out(session->console) < 0 ? -1 : session_out(session, port_out(session->console)),
		.device_gone = session_device_gone,
		.disk_failed = session_disk_failed,
		.disk_error = session_disk_error,
		.opaque = session,
		.incoming = session->arriving ? session->offer : NULL,
		.ram_source = memory ? restore_memory_source(memory) : NULL,
		.memory_lost = memory ? session_memory_lost : NULL,
		.kvm_ahead = &session->kvm_ahead,
	};
}

int session_make_machine(struct session *session, struct err *err)
{
	const struct machine_host host = session_host(session);
	int code = session_devices_adopt(session, err);

	if (!code)
		session_jail_open(session);
	return code ?: machine_create(session->config, &host, &session->machine, err);
}

int session_prepare_machine(struct session *session, struct err *err)
{
	const struct machine_host host = session_host(session);

	return machine_prepare(session->config, &host, &session->machine, err);
}

int session_complete_machine(struct session *session, struct err *err)
{
	const struct machine_host host = session_host(session);

	session_jail_open(session);
	return machine_complete(session->machine, &host, err);
}

static void session_destroy_machine(struct session *session)
{
	track_destroy(take_ptr(session->track));
	restore_memory_leave(session->memory);
	machine_destroy(take_ptr(session->machine));
	restore_memory_destroy(take_ptr(session->memory));
	session->restored = false;
}

static int session_end_code(struct session *session)
{
	if (session->gone)
		return EXIT_OFF;
	if (session->abandoned)
		return session->signal ? EXIT_SIGNAL + session->signal : EXIT_FAILED;
	switch (machine_end(session->machine)) {
	case MACHINE_PANIC:
		log_error(&session->log, "the guest's kernel panicked");
		return EXIT_PANIC;
	case MACHINE_STOPPED:
		return session->signal ? EXIT_SIGNAL + session->signal : EXIT_OFF;
	case MACHINE_FAILED:
		return EXIT_FAILED;
	default:
		return EXIT_OFF;
	}
}

/* The kernel binds an open device only once, so a descriptor that was passed in cannot be used again. */
static int session_check_reboot(const struct machine_config *config, struct err *err)
{
	if (!config->kernel)
		return err_set(err, -ENOENT, "no kernel was named for the machine when it came here; "
					     "mvmm receive --kernel FILE or mvmm restore --kernel FILE does");
	for (size_t i = 0; i < config->vfio_count; i++)
		if (config->vfios[i].fd >= 0)
			return err_set(err, -EBUSY,
				       "--vfio fd=%d: this descriptor can be bound only once; restart with a new one",
				       config->vfios[i].fd);
	return 0;
}

/* ---- reboots ---- */

struct remaking {
	struct session *session;
	struct err *err;
};

static int session_do_make_again(void *argument)
{
	const struct remaking *remaking = argument;

	return session_make_machine(remaking->session, remaking->err);
}

/* It needs calls that this thread does without since the door is closed; no guest runs meanwhile. */
static int session_make_again(struct session *session, struct err *err)
{
	return thread_call(session_do_make_again, &(struct remaking){session, err});
}

#define SHORT_LIFE 1000000000ull
#define SHORT_LIVES 5u /* without a wait */
#define LONGEST_REST 10u /* seconds */

static void session_rested(void *opaque, uint32_t events)
{
	struct session *session = opaque;

	session->resting = false;
	event_loop_stop(session->loop);
}

/*
 * A guest that resets itself as soon as it has started would do so at full speed for ever. After some short lives the
 * next one waits, each time twice as long. False: the machine is to end, or there is no timer.
 */
static bool session_rest(struct session *session, uint64_t born, struct err *err)
{
	unsigned int over, seconds;
	struct event_source *timer;

	session->short_lives = monotonic_ns() - born < SHORT_LIFE ? session->short_lives + 1 : 0;
	if (session->short_lives <= SHORT_LIVES)
		return true;
	session->ended |= session->pressed; /* such a guest has no time to see its button */
	if (session->ended)
		return false;
	over = MIN(session->short_lives - SHORT_LIVES - 1, 4u);
	seconds = MIN(1u << over, LONGEST_REST);
	if (event_loop_timer(session->loop, session_rested, session, &timer, err))
		return false;
	log_warn(&session->log, "the guest has rebooted %u times, each time within a second of its start; its next start "
		 "waits %u s", session->short_lives, seconds);
	session->resting = true;
	session_tell_manager(session);
	event_timer_set(timer, seconds * 1000000000ull, 0);
	while (session->resting && !session->ended)
		event_loop_run(session->loop);
	session->resting = false;
	event_source_remove(timer);
	return !session->ended;
}

/* Runs the started machine and those after its reboots. */
int session_live(struct session *session, struct err *err)
{
	static const char *const reasons[] = {
		[MACHINE_OFF] = "the guest powered off",         [MACHINE_REBOOT] = "the guest rebooted",
		[MACHINE_PANIC] = "the guest's kernel panicked", [MACHINE_STOPPED] = "the machine was ended",
		[MACHINE_FAILED] = "the machine failed",
	};

	session_log_live(session);
	service_ready(&session->service, session_state(session));
	session_event(session, SESSION_STARTED, json_pack("{s:b}", "paused", machine_paused(session->machine)));
	for (;;) {
		uint64_t born = monotonic_ns();

		while (machine_end(session->machine) == MACHINE_RUNNING)
			event_loop_run(session->loop);
		if (machine_end(session->machine) == MACHINE_PANIC)
			session_event(session, SESSION_GUEST_PANIC, NULL);
		if (!session_settle(session, reasons[machine_end(session->machine)]))
			return session_end_code(session);
		/* It needed the machine, and may have succeeded. */
		outgoing_destroy(take_ptr(session->outgoing), NULL);
		snapshot_thread_destroy(take_ptr(session->snapshot), reasons[machine_end(session->machine)]);
		if (session->gone || machine_end(session->machine) != MACHINE_REBOOT ||
		    session->config->on_reboot != ON_REBOOT_REBOOT)
			return session_end_code(session);
		if (!session_rest(session, born, err))
			return session->signal ? EXIT_SIGNAL + session->signal : session->ended ? EXIT_OFF : EXIT_FAILED;
		machine_keep_bursts(session->machine, session->config);
		session_destroy_machine(session);
		session->button_pressed = session->pressed = false;
		session_devices_leave(session);
		if (session_check_reboot(session->config, err) || session_make_again(session, err) ||
		    machine_start(session->machine, err)) {
			err_prefix(err, 0, "reboot");
			return EXIT_FAILED;
		}
		err->text[0] = 0; /* from attempts that were not needed */
		session_tell_manager(session);
		session_event(session, SESSION_REBOOTED, NULL);
	}
}

/*
 * The socket exists before the guest runs; connections close after the name is free, for which `mvmm stop` waits. The guest
 * runs while this thread closes the door.
 */
static int session_begin(struct session *session, struct err *err)
{
	int code = session_make_helpers(session, NULL, err) ?: event_loop_create(&session->loop, err);

	session_raise_descriptors();
	code = code ?: service_watch(&session->service, session->loop, &session->log, err);
	code = code ?: rundir_claim(session->config->name, &session->rundir, err);
	code = code ?: session_catch_signals(session, err);
	code = code ?: session_open_ports(session, err);
	code = code ?: session_open_control(session, err);
	code = code ?: session_make_machine(session, err);
	code = code ?: session_jail_close(session, err);
	code = code ?: session_make_door(session, false, err);
	if (code)
		return code;
	session_keep_ports(session);
	code = machine_start(session->machine, err);
	return code ?: door_close(session->door, err);
}

void session_end(struct session *session)
{
	door_end(session->door);
	stage_destroy(take_ptr(session->stage));
	kvm_ahead_close(&session->kvm_ahead);
	service_stopping(&session->service);
	session_events_ended(session);
	session_metrics_last(session);
	if (!session->abandoned) {
		outgoing_destroy(session->outgoing, "the machine was ended");
		snapshot_thread_destroy(session->snapshot, "the machine was ended");
		session_destroy_machine(session);
	}
	port_close(session->console);
	port_close(session->serial);
	session_folder_done(session);
	session_metrics_done(session);
	session_folder_release(session);
	control_destroy(session->control);
	firecracker_destroy(session->face, session->face_code);
	event_source_remove(session->signals);
	service_close(&session->service);
	fd_close(&session->signal_fd);
	if (!session->abandoned) /* threads that are left may still call it */
		event_loop_destroy(session->loop);
	machine_offer_destroy(session->offer);
	machine_files_close(&session->files);
}

void session_done(struct session *session)
{
	if (!session->abandoned) {
		door_destroy(session->door);
		helpers_destroy(session->helpers);
		free(session->tls_helper);
	}
	jail_destroy(session->jail);
}

int session_run(struct machine_config *config, struct err *err)
{
	struct session session = {
		.config = config,
		.seccomp = config->seccomp,
		.log = {.fd = STDERR_FILENO, .prefix = "mvmm: "},
		.signal_fd = -1,
		.kvm_ahead = {-1, -1},
	};
	int code = EXIT_BAD_INPUT;

	service_open(&session.service);
	if (!session_jail_enter(&session, &config->jail, config->vfio_count > 0, &code, err))
		return code;
	if (!session_log_open(&session, &config->report, config->verbose, config->quiet, err)) {
		jail_destroy(session.jail);
		return code;
	}
	if (!session_begin(&session, err)) {
		err->text[0] = 0; /* from attempts that were not needed */
		code = session_live(&session, err);
	}
	session_end(&session);
	session_done(&session);
	if (!session.abandoned)
		log_close(&session.log);
	return code;
}
