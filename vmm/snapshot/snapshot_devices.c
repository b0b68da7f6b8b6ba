/* SPDX-License-Identifier: Apache-2.0 */
/* See snapshot_devices.h. */
#include "vmm/snapshot/snapshot_devices.h"

#include <poll.h>
#include <stdio.h>

#include "core/crew.h"
#include "core/monotonic.h"
#include "vmm/migration/device_sender.h"

#define TICK_MS 100
#define PIECE MIB(1) /* of a state that is loaded; a crew that has failed ends after it */

struct snapshot_devices {
	struct snapshot_devices_options options;
	struct vfio_migration *const *group;
	size_t count;
	struct device_sender *sender; /* NULL: nothing is being read */
	bool changed;                 /* they do not run as they did at first */
	uint64_t total;               /* bytes of all states so far; atomic */
	struct state_buffer states[WIRE_MAX_DEVICES]; /* each is its reader's, until that has ended */
};

/* ---- before the stop ---- */

static int snapshot_devices_too_large(const struct snapshot_devices *devices, struct err *err)
{
	return err_set(err, -EFBIG, "the state of the machine's host devices is too large for a snapshot, which holds up to %llu "
		       "MiB of it; remove a device first: mvmm vfio remove",
		       (unsigned long long)(devices->options.limit >> 20));
}

/* As far as the devices can tell. */
static int snapshot_devices_check_sizes(const struct snapshot_devices *devices, struct err *err)
{
	uint64_t room = devices->options.limit;

	for (size_t i = 0; i < devices->count; i++) {
		struct vfio_migration_pending pending;
		int code = vfio_migration_pending(devices->group[i], &pending, err);

		if (code)
			return code;
		if (pending.stop_copy > room)
			return snapshot_devices_too_large(devices, err);
		room -= pending.stop_copy;
	}
	return 0;
}

int snapshot_devices_create(const struct snapshot_devices_options *options, struct snapshot_devices **ret,
			    struct err *err)
{
	struct vfio_migration *const *group;
	size_t count = options->ops->devices ? options->ops->devices(options->machine, &group) : 0;
	struct snapshot_devices *devices;
	int code;

	*ret = NULL;
	if (!count)
		return 0;
	if (count > WIRE_MAX_DEVICES)
		return err_set(err, -E2BIG, "%zu host devices; a snapshot can have at most %u", count, WIRE_MAX_DEVICES);
	devices = calloc(1, sizeof(*devices));
	if (!devices)
		return err_sys(err, -ENOMEM, "host devices");
	devices->options = *options;
	devices->group = group;
	devices->count = count;
	code = snapshot_devices_check_sizes(devices, err);
	if (code)
		snapshot_devices_destroy(devices);
	else
		*ret = devices;
	return code;
}

void snapshot_devices_destroy(struct snapshot_devices *devices)
{
	if (!devices)
		return;
	device_sender_destroy(devices->sender);
	for (size_t i = 0; i < devices->count; i++)
		state_buffer_free(&devices->states[i]);
	free(devices);
}

/* ---- reading ---- */

/* On the device's own thread. */
static int snapshot_devices_take(void *opaque, size_t index, const void *data, size_t len, struct err *err)
{
	struct snapshot_devices *devices = opaque;

	if (__atomic_add_fetch(&devices->total, len, __ATOMIC_RELAXED) > devices->options.limit)
		return snapshot_devices_too_large(devices, err);
	if (state_buffer_add(&devices->states[index], data, len))
		return err_sys(err, -ENOMEM, "%zu MiB of device state", devices->states[index].len >> 20);
	return 0;
}

static int snapshot_devices_begin_reading(struct snapshot_devices *devices, struct err *err)
{
	const struct device_sender_options options = {
		.devices = devices->group, .take = snapshot_devices_take, .opaque = devices, .count = devices->count,
		.rate = MIGRATION_DEFAULT_DEVICE_RATE,
	};

	return device_sender_create(&options, &devices->sender, err);
}

int snapshot_devices_start(struct snapshot_devices *devices, struct err *err)
{
	int code = devices ? devices->options.ops->start_devices(devices->options.machine, err) : 0;

	if (!devices || code)
		return code;
	devices->changed = true;
	return snapshot_devices_begin_reading(devices, err);
}

int snapshot_devices_costs(struct snapshot_devices *devices, struct migration_costs *costs, struct err *err)
{
	struct device_sender_pending pending;
	struct pollfd failed;
	int code;

	if (!devices)
		return 0;
	failed = (struct pollfd){.fd = device_sender_fd(devices->sender), .events = POLLIN};
	code = poll(&failed, 1, 0) > 0 ? device_sender_wait(devices->sender, err) : 0;
	code = code ?: device_sender_get_pending(devices->sender, &pending, err);
	if (code)
		return code;
	costs->device = pending.stop_bytes;
	costs->device_time = pending.stop_ns;
	costs->device_assumed = pending.assumed;
	costs->ready = pending.ready;
	return 0;
}

int snapshot_devices_stop(struct snapshot_devices *devices, struct err *err)
{
	int code = devices ? devices->options.ops->stop_devices(devices->options.machine, err) : 0;

	if (!devices || code)
		return code;
	devices->changed = true;
	if (!devices->sender)
		code = snapshot_devices_begin_reading(devices, err);
	if (!code)
		device_sender_stopped(devices->sender);
	return code;
}

int snapshot_devices_read(struct snapshot_devices *devices, struct err *err)
{
	const struct snapshot_devices_options *options = devices ? &devices->options : NULL;
	int code = 0;

	if (!devices)
		return 0;
	while (!code && !device_sender_done(devices->sender, options->cancel_fd, monotonic_ms() + TICK_MS))
		code = options->tick ? options->tick(options->opaque, err) : 0;
	return code ?: device_sender_wait(devices->sender, err);
}

/* Devices that run again give nothing any more, so that threads which still read them end. */
void snapshot_devices_run(struct snapshot_devices *devices)
{
	if (!devices || !devices->changed)
		return;
	devices->changed = false;
	devices->options.ops->run_devices(devices->options.machine);
	device_sender_destroy(take_ptr(devices->sender));
}

void snapshot_devices_add(const struct snapshot_devices *devices, struct snapshot_state *state)
{
	for (size_t i = 0; devices && i < devices->count; i++) {
		struct snapshot_device *device = &state->devices[state->device_count++];
		const char *id = devices->options.ops->device_id(devices->options.machine, i);

		snprintf(device->id, sizeof(device->id), "%s", id);
		device->state = (struct snapshot_bytes){devices->states[i].data, devices->states[i].len};
	}
}

/* ---- loading ---- */

struct load {
	struct vfio_migration *const *group;
	const struct snapshot_device *states[WIRE_MAX_DEVICES]; /* of each of the group */
	struct crew *crew;
};

static int snapshot_devices_load_one(void *opaque, unsigned int index, struct err *err)
{
	const struct load *load = opaque;
	const struct snapshot_device *device = load->states[index];
	struct vfio_migration *migration = load->group[index];
	const uint8_t *bytes = device->state.data;
	int code = vfio_migration_load(migration, err);

	for (size_t at = 0, len; !code && at < device->state.len; at += len) {
		len = MIN(device->state.len - at, (size_t)PIECE);
		code = crew_broken(load->crew) ? -ECANCELED : vfio_migration_write(migration, bytes + at, len, err);
	}
	code = code ?: vfio_migration_loaded(migration, err);
	return code ? err_prefix(err, code, "--vfio %s", device->id) : 0;
}

static int snapshot_devices_find(const struct snapshot_state *state, const char *id, const struct snapshot_device **ret,
				 struct err *err)
{
	for (size_t i = 0; i < state->device_count; i++) {
		*ret = &state->devices[i];
		if (strcmp((*ret)->id, id) == 0)
			return 0;
	}
	return err_set(err, -EBADMSG, "the snapshot has no state of the machine's host device %s", id);
}

int snapshot_devices_load(const struct snapshot_state *state, struct vfio_migration *const *group, size_t count,
			  const char *(*id)(const void *opaque, size_t index), const void *opaque, int cancel_fd,
			  struct err *err)
{
	static const struct crew_ops ops = {.work = snapshot_devices_load_one};
	struct load load = {.group = group};
	int code = 0;

	if (count != state->device_count)
		return err_set(err, -EBADMSG, "the snapshot has the states of %zu host devices, but the machine has %zu",
			       state->device_count, count);
	for (size_t i = 0; !code && i < count; i++)
		code = snapshot_devices_find(state, id(opaque, i), &load.states[i], err);
	if (code || !count)
		return code;
	code = crew_create(&ops, &load, (unsigned int)count, THREAD_SNAPSHOT, "load-dev", &load.crew, err);
	if (code)
		return code;
	crew_wait(load.crew, cancel_fd, -1);
	code = crew_result(load.crew, err);
	crew_destroy(load.crew);
	return code;
}
