/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See target.h. The steps are a table; each says how its failure is reported to the source. What they create belongs to
 * the target until its end. The source is hostile: channel.c and wire.c limit and order its frames, and guest memory is
 * accessed through guest_memory_at() only.
 */
#include "vmm/migration/target.h"

#include <jansson.h>
#include <poll.h>
#include <sys/epoll.h>

#include "core/monotonic.h"
#include "vmm/migration/acceptor.h"
#include "vmm/migration/deadline.h"
#include "vmm/migration/device_receiver.h"
#include "vmm/migration/memory_receiver.h"

#define TICK_MS 100
#define MAX_PAUSE 172800000000000ull /* ns; the most that is believed of a source's pause */
#define OFFER_SILENCES 3             /* of silence_ms, for an OFFER */

struct migration_target {
	struct migration_target_config config;
	struct deadline deadline; /* with the config's cancel_fd; all waits get its descriptor */
	uint64_t pause;           /* ns for which the source pauses the guest at most */
	struct acceptor *acceptor;
	struct channel *control;
	struct channel *channels[WIRE_MAX_STREAMS];
	struct memory_receiver *receiver;
	uint32_t streams;
	struct channel *device_channels[WIRE_MAX_DEVICES];
	size_t devices;
	struct device_receiver *device_receiver; /* NULL: no devices */
	struct disk_receiver *disk_receiver;     /* NULL: no disks */
	int failed_fd;                           /* readable when a receiver has failed; or -1 */
	char *state;
	size_t state_len;
};

/* ---- the source and its offer ---- */

static int target_await_source(struct migration_target *target, struct err *err)
{
	int code = acceptor_control(target->acceptor, -1, &target->control, err);

	return code ?: channel_keep_alive(target->control, err);
}

/* From now on waits end after that many of silence_ms and ns; 0 and 0: never, as long as the source is alive. */
static void target_set_deadline(struct migration_target *target, unsigned int silences, uint64_t span)
{
	span += target->control->options.silence_ms * 1000000ull * silences;
	deadline_set(&target->deadline, span ? monotonic_ns() + span : 0);
}

/* Splits the offer into the number of connections, the longest pause and the machine, a reference to which is added. */
static int target_read_offer(struct migration_target *target, const json_t *offer, json_t **machine, struct err *err)
{
	json_int_t streams = json_integer_value(json_object_get(offer, "streams"));
	json_int_t pause = json_integer_value(json_object_get(offer, "pause"));

	if (!json_is_object(json_object_get(offer, "machine")) || streams < 1 || streams > WIRE_MAX_STREAMS)
		return err_set(err, -EPROTO, "the source's offer is invalid");
	target->streams = (uint32_t)streams;
	target->pause = pause > 0 ? MIN((uint64_t)pause, MAX_PAUSE) : MAX_PAUSE;
	*machine = json_incref(json_object_get(offer, "machine"));
	return 0;
}

static int target_parse_offer(struct migration_target *target, const char *text, size_t len, json_t **machine,
			      struct err *err)
{
	json_t *offer = NULL;
	int code = target->config.ops->parse(target->config.opaque, text, len, &offer, err);

	code = code ? err_prefix(err, code, "the offered machine") : target_read_offer(target, offer, machine, err);
	json_decref(offer);
	return code;
}

static int target_take_offer(struct migration_target *target, struct err *err)
{
	_cleanup_(free_ptr) char *text = NULL;
	_cleanup_(free_ptr) char *ready = NULL;
	json_t *machine;
	struct wire_frame frame;
	int code;

	target_set_deadline(target, OFFER_SILENCES, 0);
	code = channel_expect(target->control, WIRE_OFFER, &frame, err);
	code = code ?: channel_payload_all(target->control, &text, err);
	target_set_deadline(target, 0, 0);
	code = code ?: target_parse_offer(target, text, frame.length, &machine, err);
	code = code ?: target->config.ops->create(target->config.opaque, machine, &ready, err);
	return code ?: channel_send(target->control, WIRE_READY, 0, 0, ready, strlen(ready), err);
}

/* Others send what has to be sent from now on. */
static int target_leave(struct migration_target *target, struct err *err)
{
	channel_keep_alive_end(target->control);
	return 0;
}

static int target_go_on(struct migration_target *target, struct err *err)
{
	return channel_keep_alive(target->control, err);
}

/* ---- failures outside of the control channel ---- */

/* A failure there ends waits on the control channel. */
static int target_listen_to(struct migration_target *target, int fd, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (target->failed_fd < 0)
		target->failed_fd = epoll_create1(EPOLL_CLOEXEC);
	if (target->failed_fd < 0 || epoll_ctl(target->failed_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return err_sys(err, -errno, "epoll");
	channel_set_interrupt(target->control, target->failed_fd);
	return 0;
}

/* Returns what has failed there. */
static int target_find_failure(struct migration_target *target, struct err *err)
{
	struct pollfd fds[] = {
		{.fd = target->disk_receiver ? disk_receiver_fd(target->disk_receiver) : -1, .events = POLLIN},
		{.fd = target->device_receiver ? device_receiver_fd(target->device_receiver) : -1, .events = POLLIN},
	};
	int code;

	poll(fds, ARRAY_SIZE(fds), 0);
	if (fds[0].revents)
		code = disk_receiver_wait(target->disk_receiver, err);
	else if (fds[1].revents)
		code = device_receiver_wait(target->device_receiver, err);
	else
		code = memory_receiver_wait(target->receiver, target->deadline.fd, err);
	return code ?: -EIO;
}

/* Waits for a frame of the source, and for its other channels, whose failure says more than its silence. */
static int target_expect_either(struct migration_target *target, enum wire_type type, enum wire_type other,
				struct wire_frame *frame, struct err *err)
{
	int code = channel_expect_either(target->control, type, other, frame, err);

	return code == -EINTR ? target_find_failure(target, err) : code;
}

static int target_expect(struct migration_target *target, enum wire_type type, struct wire_frame *frame,
			 struct err *err)
{
	return target_expect_either(target, type, type, frame, err);
}

/* ---- memory ---- */

static int target_join_channels(struct migration_target *target, struct err *err)
{
	struct memory_receiver_options options = {.channels = target->channels, .channel_count = target->streams};
	struct wire_frame frame;
	int code = acceptor_join(target->acceptor, target->control, WIRE_MEMORY, target->streams, target->channels,
				 err);

	if (code == -EINTR) /* a frame of the source, which can only be its cancellation */
		code = channel_expect(target->control, WIRE_STOPPED, &frame, err) ?:
		       err_set(err, -EPROTO, "STOPPED before memory");
	options.memory = target->config.ops->memory(target->config.opaque);
	code = code ?: memory_receiver_create(&options, &target->receiver, err);
	return code ?: target_listen_to(target, memory_receiver_fd(target->receiver), err);
}

/* ---- host devices ---- */

static int target_join_devices(struct migration_target *target, struct err *err)
{
	struct device_receiver_options options = {.channels = target->device_channels};
	struct wire_frame frame;
	int code;

	options.count = target->config.ops->devices ? target->config.ops->devices(target->config.opaque,
										  &options.devices) : 0;
	if (!options.count)
		return 0;
	if (options.count > WIRE_MAX_DEVICES)
		return err_set(err, -E2BIG, "%zu host devices; at most %u can be migrated", options.count,
			       WIRE_MAX_DEVICES);
	target->devices = options.count;
	code = acceptor_join(target->acceptor, target->control, WIRE_DEVICE, (uint32_t)options.count,
			     target->device_channels, err);
	if (code == -EINTR)
		code = target_expect(target, WIRE_STOPPED, &frame, err) ?:
		       err_set(err, -EPROTO, "STOPPED before devices");
	code = code ?: device_receiver_create(&options, &target->device_receiver, err);
	return code ?: target_listen_to(target, device_receiver_fd(target->device_receiver), err);
}

/* ---- disks ---- */

static int target_join_disks(struct migration_target *target, struct err *err)
{
	const struct disk_target *disks;
	size_t count = target->config.ops->disks ? target->config.ops->disks(target->config.opaque, &disks) : 0;
	struct channel *channel = NULL;
	struct wire_frame frame;
	int code;

	if (!count)
		return 0;
	code = acceptor_join(target->acceptor, target->control, WIRE_DISK, 1, &channel, err);
	if (code == -EINTR)
		code = target_expect(target, WIRE_STOPPED, &frame, err) ?:
		       err_set(err, -EPROTO, "STOPPED before disks");
	code = code ?: disk_receiver_create(disks, count, &channel, &target->disk_receiver, err);
	channel_destroy(channel);
	return code ?: target_listen_to(target, disk_receiver_fd(target->disk_receiver), err);
}

/* ---- frames during the pause, and the rehearsal ---- */

/* Loads the state of a rehearsal. */
static int target_try_state(struct migration_target *target, struct err *err)
{
	_cleanup_(free_ptr) char *state = NULL;
	size_t len = target->control->payload_left;
	int code = channel_payload_all(target->control, &state, err);
	uint64_t begin = monotonic_ns();

	code = code ?: target->config.ops->try(target->config.opaque, state, len, err);
	return code ?: channel_send(target->control, WIRE_TRIED, monotonic_ns() - begin, 0, NULL, 0, err);
}

static int target_await_stop(struct migration_target *target, struct err *err)
{
	struct wire_frame frame;
	int code;

	do {
		code = target_expect_either(target, WIRE_STOPPED, WIRE_TRIAL, &frame, err);
		if (!code && frame.type == WIRE_TRIAL)
			code = target_try_state(target, err);
	} while (!code && frame.type == WIRE_TRIAL);
	/* Until GO; the source gives up earlier. */
	target_set_deadline(target, 1, target->pause);
	return code;
}

static int target_take_state(struct migration_target *target, struct err *err)
{
	struct wire_frame frame;
	int code = target_expect(target, WIRE_STATE, &frame, err);

	if (code)
		return code;
	target->state_len = frame.length;
	code = channel_payload_all(target->control, &target->state, err);
	return code ?: target_expect(target, WIRE_END, &frame, err);
}

/* The source has sent END; whether it still is there and wants this. */
static int target_hear_source(struct migration_target *target, struct err *err)
{
	struct wire_frame frame;
	int code = channel_check(target->control, err);

	if (code <= 0)
		return code;
	return channel_expect(target->control, WIRE_GO, &frame, err) ?: err_set(err, -EPROTO, "GO before LOADED");
}

/* Waits for END on all other channels, but not for a source that has gone meanwhile. */
static int target_await_ends(struct migration_target *target, struct err *err)
{
	int fd = target->deadline.fd, code = 0;

	while (!code && !memory_receiver_done(target->receiver, fd, monotonic_ms() + TICK_MS))
		code = target_hear_source(target, err);
	code = code ?: memory_receiver_wait(target->receiver, fd, err);
	while (!code && target->device_receiver &&
	       !device_receiver_done(target->device_receiver, fd, monotonic_ms() + TICK_MS))
		code = target_hear_source(target, err);
	if (!code && target->device_receiver)
		code = device_receiver_wait(target->device_receiver, err);
	while (!code && target->disk_receiver &&
	       !disk_receiver_done(target->disk_receiver, fd, monotonic_ms() + TICK_MS))
		code = target_hear_source(target, err);
	return code ?: target->disk_receiver ? disk_receiver_wait(target->disk_receiver, err) : 0;
}

static int target_load(struct migration_target *target, struct err *err)
{
	uint64_t begin;
	int code;

	channel_set_interrupt(target->control, -1);
	code = target_await_ends(target, err);
	if (code)
		return code;
	begin = monotonic_ns();
	code = target->config.ops->load(target->config.opaque, target->state, target->state_len, err);
	return code ?: channel_send(target->control, WIRE_LOADED, monotonic_ns() - begin, 0, NULL, 0, err);
}

static int target_await_go(struct migration_target *target, struct err *err)
{
	struct wire_frame frame;
	int code = channel_expect(target->control, WIRE_GO, &frame, err);

	deadline_set(&target->deadline, 0);
	return code;
}

/* The guest belongs to this host now and runs even if the source does not get the reply. */
static int target_start(struct migration_target *target, struct err *err)
{
	uint64_t begin = monotonic_ns();
	int code = target->config.ops->start(target->config.opaque, err);

	if (code)
		return code;
	if (!channel_send(target->control, WIRE_RUNNING, monotonic_ns() - begin, 0, NULL, 0, NULL))
		channel_finish(target->control);
	return 0;
}

/* ---- all steps ---- */

#define MEETING 3u /* steps of it */

static const struct step {
	int (*run)(struct migration_target *target, struct err *err);
	enum wire_type failure; /* how it is reported to the source; 0: not */
} steps[] = {
	/* meet */
	{target_await_source, 0},
	{target_take_offer, WIRE_REFUSED},
	{target_leave, WIRE_FAILED},
	/* run */
	{target_go_on, WIRE_FAILED},
	{target_join_channels, WIRE_FAILED},
	{target_join_devices, WIRE_FAILED},
	{target_join_disks, WIRE_FAILED},
	{target_await_stop, WIRE_FAILED},
	{target_take_state, WIRE_FAILED},
	{target_load, WIRE_FAILED},
	{target_await_go, WIRE_FAILED},
	{target_start, WIRE_FAILED},
};

/* The guest is not here: the source's message says more than a lost connection; our message is sent to it. */
static int target_explain(struct migration_target *target, const struct step *step, int code, struct err *err)
{
	if (code == -ECANCELED && deadline_passed(&target->deadline))
		code = err_set(err, -ETIME, "the source has not got on in time; the target gives up");
	else if (code == -ECANCELED)
		err_set(err, code, "the target was ended");
	deadline_set(&target->deadline, 0);
	if (!target->control)
		return code;
	if (code == -ECONNRESET)
		code = channel_last_words(target->control, code, err);
	if (step->failure && code != -EREMOTEIO && code != -ECONNRESET &&
	    code != -ETIMEDOUT) /* a lost peer gets no message */
		channel_farewell(target->control, step->failure, err->text);
	return code;
}

static void target_hang_up(struct migration_target *target)
{
	memory_receiver_destroy(take_ptr(target->receiver));
	device_receiver_destroy(take_ptr(target->device_receiver));
	disk_receiver_destroy(take_ptr(target->disk_receiver));
	for (size_t i = 0; i < target->devices; i++)
		channel_destroy(take_ptr(target->device_channels[i]));
	for (uint32_t i = 0; i < target->streams; i++)
		channel_destroy(take_ptr(target->channels[i]));
	channel_destroy(take_ptr(target->control));
	fd_close(&target->failed_fd);
}

static int target_take_steps(struct migration_target *target, size_t from, size_t end, struct err *err)
{
	int code = 0;

	for (size_t i = from; !code && i < end; i++) {
		code = steps[i].run(target, err);
		if (code)
			code = target_explain(target, &steps[i], code, err);
	}
	if (code || end == ARRAY_SIZE(steps))
		target_hang_up(target);
	return code;
}

int migration_target_meet(struct migration_target *target, struct err *err)
{
	return target_take_steps(target, 0, MEETING, err);
}

int migration_target_run(struct migration_target *target, struct err *err)
{
	return target_take_steps(target, MEETING, ARRAY_SIZE(steps), err);
}

/* ---- creating it ---- */

int migration_target_create(const struct migration_target_config *config, struct migration_target **ret,
			    struct err *err)
{
	struct acceptor_options options = {.from = config->from, .log = config->log,
					   .silence_ms = config->silence_ms, .tls = config->tls,
					   .tls_peer = config->tls_peer, .tls_helper = config->tls_helper};
	struct migration_target *target = calloc(1, sizeof(*target));
	int code;

	if (!target)
		return err_sys(err, -ENOMEM, "migration");
	target->failed_fd = -1;
	target->config = *config;
	target->config.from = NULL; /* copied */
	target->deadline = DEADLINE_NONE;
	code = deadline_create(config->cancel_fd, &target->deadline, err);
	options.cancel_fd = target->deadline.fd;
	code = code ?: acceptor_create(&options, &target->acceptor, err);
	if (code) {
		deadline_destroy(&target->deadline);
		free(target);
		return code;
	}
	*ret = target;
	return 0;
}

void migration_target_destroy(struct migration_target *target)
{
	if (!target)
		return;
	target_hang_up(target);
	acceptor_destroy(target->acceptor);
	deadline_destroy(&target->deadline);
	free(target->state);
	free(target);
}

const char *migration_target_text(const struct migration_target *target)
{
	return acceptor_text(target->acceptor);
}
