/* SPDX-License-Identifier: Apache-2.0 */
/* See device_sender.h. */
#include "vmm/migration/device_sender.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "core/monotonic.h"
#include "vmm/migration/device_workers.h"

#define LOOK_MS 10  /* how often a running device is polled */
#define MEASURABLE KIB(256) /* a smaller amount measures latencies, not a rate */
#define STALL_MS 30000 /* a stopped device that provides nothing for that long has failed */

struct device_sender {
	struct device_workers *workers;
	uint64_t rate;
	int (*take)(void *opaque, size_t index, const void *data, size_t len, struct err *err);
	void *opaque;
};

/* Handles an ACK of the target; any other frame is an error. */
static int device_sender_hear(struct device_worker *worker, struct err *err)
{
	struct wire_frame frame;
	int code = worker->channel ? channel_check(worker->channel, err) : 0;

	if (code <= 0)
		return code;
	code = channel_expect(worker->channel, WIRE_ACK, &frame, err);
	if (code == 0 && (!worker->asks || worker->acked))
		return err_set(err, -EPROTO, "the target sent an unexpected ACK");
	if (code == 0)
		__atomic_store_n(&worker->acked, true, __ATOMIC_RELEASE);
	return code;
}

/* The device has no more data now: its initial data may be complete; then asks the target for an ACK. */
static int device_sender_ask_for_ack(struct device_worker *worker, struct err *err)
{
	struct vfio_migration_pending pending;
	int code = worker->asks ? 0 : vfio_migration_pending(worker->device, &pending, err);

	if (code < 0 || worker->asks || pending.initial || !worker->position)
		return code;
	worker->asks = true;
	if (!worker->channel) {
		__atomic_store_n(&worker->acked, true, __ATOMIC_RELEASE);
		return 0;
	}
	return channel_send(worker->channel, WIRE_INITIAL, worker->position, 0, NULL, 0, err);
}

static bool device_sender_is_stopped(struct device_worker *worker)
{
	return __atomic_load_n(&worker->all->stopped, __ATOMIC_ACQUIRE);
}

/* Sleeps up to LOOK_MS, until the devices are stopped or the crew ends. False: it ends. */
static bool device_sender_sleep(struct device_worker *worker)
{
	struct pollfd fds[] = {{.fd = worker->all->stopped_fd, .events = POLLIN},
			       {.fd = crew_fd(worker->all->crew), .events = POLLIN}};

	poll(fds, ARRAY_SIZE(fds), LOOK_MS);
	return !fds[1].revents;
}

/*
 * Waits for more data after an empty read; stopped: the read was one of a stopped device. idle counts the ms for which
 * a stopped device has provided nothing.
 */
static int device_sender_rest(struct device_worker *worker, bool stopped, unsigned int *idle, struct err *err)
{
	int code;

	if (!device_sender_sleep(worker))
		return err_set(err, -ECANCELED, "the migration has ended");
	if (stopped) {
		vfio_migration_wait(worker->device, LOOK_MS);
		*idle += LOOK_MS;
		return *idle < STALL_MS ? 0 : err_set(err, -ETIMEDOUT, "it has provided no device state for %u s",
						      STALL_MS / 1000);
	}
	if (device_sender_is_stopped(worker)) /* since the read: its data is available at once */
		return 0;
	code = device_sender_hear(worker, err);
	return code < 0 ? code : device_sender_ask_for_ack(worker, err);
}

static int device_sender_send_data(struct device_worker *worker, const void *data, size_t len, struct err *err)
{
	const struct device_sender *sender = worker->all->opaque;
	int code = worker->all->limiter ? limiter_wait(worker->all->limiter, len, crew_fd(worker->all->crew)) : 0;

	if (code < 0)
		return err_sys(err, code, "device state");
	code = worker->channel ? channel_send(worker->channel, WIRE_DATA, worker->position, 0, data, len, err) :
				 sender->take(sender->opaque, (size_t)(worker - worker->all->workers), data, len, err);
	__atomic_store_n(&worker->position, worker->position + len, __ATOMIC_RELAXED);
	__atomic_store_n(&worker->frames, worker->frames + 1, __ATOMIC_RELAXED);
	return code;
}

static int device_sender_send_device(struct device_worker *worker, struct err *err)
{
	size_t room = worker->all->limiter ? limiter_piece(worker->all->limiter, WIRE_MAX_DATA) : WIRE_MAX_DATA;
	_cleanup_(free_ptr) uint8_t *buf = malloc(room);
	unsigned int idle = 0;
	int code = buf ? 0 : err_sys(err, -ENOMEM, "device state");

	while (code == 0) {
		bool stopped = device_sender_is_stopped(worker);
		uint64_t begin = monotonic_ns();
		ssize_t n = vfio_migration_read(worker->device, buf, room, err);

		if (n == 0)
			return worker->channel ? channel_send(worker->channel, WIRE_END, worker->position, worker->frames,
							      NULL, 0, err) : 0;
		if (n == -EAGAIN) {
			code = device_sender_rest(worker, stopped, &idle, err);
			continue;
		}
		idle = 0;
		code = n < 0 ? (int)n : device_sender_send_data(worker, buf, (size_t)n, err);
		__atomic_fetch_add(&worker->busy_ns, monotonic_ns() - begin, __ATOMIC_RELAXED);
	}
	return code;
}

int device_sender_create(const struct device_sender_options *options, struct device_sender **ret, struct err *err)
{
	struct device_sender *sender = calloc(1, sizeof(*sender));
	int code;

	if (!sender)
		return err_sys(err, -ENOMEM, "device channels");
	*sender = (struct device_sender){.rate = options->rate, .take = options->take, .opaque = options->opaque};
	code = device_workers_create(options->devices, options->channels, options->count, options->limiter, "send-dev",
				     device_sender_send_device, sender, &sender->workers, err);
	if (code < 0) {
		free(sender);
		return code;
	}
	*ret = sender;
	return 0;
}

void device_sender_destroy(struct device_sender *sender)
{
	if (!sender)
		return;
	device_workers_destroy(sender->workers);
	free(sender);
}

int device_sender_fd(const struct device_sender *sender)
{
	return crew_fd(sender->workers->crew);
}

/*
 * Adds the time that the device needs for these bytes, at its rate so far. If it has provided too little to measure a
 * rate, its times are mostly those of a read and a frame; then one more frame and END are added.
 */
static void device_sender_add_time(const struct device_sender *sender, const struct device_worker *worker,
				   uint64_t bytes, struct device_sender_pending *all)
{
	uint64_t done = __atomic_load_n(&worker->position, __ATOMIC_RELAXED);
	uint64_t ns = __atomic_load_n(&worker->busy_ns, __ATOMIC_RELAXED);
	uint64_t frames = __atomic_load_n(&worker->frames, __ATOMIC_RELAXED);
	bool measured = done >= MEASURABLE && ns;
	double rate = measured ? (double)done * 1e9 / (double)ns : (double)sender->rate;

	all->stop_ns = MAX(all->stop_ns, (uint64_t)MIN((double)bytes * 1e9 / rate, 1e18));
	if (!measured && frames)
		all->stop_ns = MAX(all->stop_ns, 2 * (ns / frames));
	all->assumed |= !measured && bytes >= MEASURABLE;
}

int device_sender_get_pending(struct device_sender *sender, struct device_sender_pending *ret, struct err *err)
{
	struct device_sender_pending all = {.known = true, .ready = true};

	for (size_t i = 0; i < sender->workers->count; i++) {
		struct device_worker *worker = &sender->workers->workers[i];
		struct vfio_migration_pending pending;
		int code = vfio_migration_pending(worker->device, &pending, err);

		if (code < 0)
			return code;
		all.stop_bytes += pending.stop_copy;
		device_sender_add_time(sender, worker, pending.stop_copy, &all);
		all.known &= pending.stop_known;
		all.ready &= !vfio_migration_precopies(worker->device) ||
			     (!pending.initial && __atomic_load_n(&worker->acked, __ATOMIC_ACQUIRE));
	}
	*ret = all;
	return 0;
}

void device_sender_stopped(struct device_sender *sender)
{
	__atomic_store_n(&sender->workers->stopped, true, __ATOMIC_RELEASE);
	eventfd_write(sender->workers->stopped_fd, 1);
}

bool device_sender_done(struct device_sender *sender, int cancel_fd, int64_t until)
{
	return crew_wait(sender->workers->crew, cancel_fd, until);
}

int device_sender_wait(struct device_sender *sender, struct err *err)
{
	return device_workers_wait(sender->workers, err);
}
