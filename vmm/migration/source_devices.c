/* SPDX-License-Identifier: Apache-2.0 */
/* See source_internal.h. */
#include "vmm/migration/source_internal.h"

#include "core/monotonic.h"

#define TICK_MS 100

/* The devices' session has ended, or run_devices ends it; threads that read the devices then end. */
void source_drop_devices(struct migration_source *source, bool stays)
{
	if (source->devices && stays)
		source->config.ops->run_devices(source->config.machine);
	device_sender_destroy(take_ptr(source->device_sender));
	for (size_t i = 0; i < source->devices; i++)
		channel_destroy(take_ptr(source->device_channels[i]));
	source->devices = 0;
}

int source_start_devices(struct migration_source *source, struct err *err)
{
	const struct migration_machine_ops *ops = source->config.ops;
	struct device_sender_options options = {.channels = source->device_channels, .limiter = &source->limiter,
						.rate = source->config.request->device_rate ?: MIGRATION_DEFAULT_DEVICE_RATE};
	int code = 0;

	options.count = ops->devices ? ops->devices(source->config.machine, &options.devices) : 0;
	if (!options.count)
		return 0;
	if (options.count > WIRE_MAX_DEVICES)
		return err_set(err, -E2BIG, "%zu host devices; at most %u can be migrated", options.count, WIRE_MAX_DEVICES);
	source->devices = options.count;
	for (uint32_t i = 0; !code && i < options.count; i++)
		code = dialer_connect(source->dialer, WIRE_DEVICE, i, (uint32_t)options.count, &source->device_channels[i], err);
	code = code ?: ops->start_devices(source->config.machine, err);
	code = code ?: device_sender_create(&options, &source->device_sender, err);
	if (code)
		source_drop_devices(source, true);
	return code;
}

int source_stop_devices(struct migration_source *source, struct err *err)
{
	int code = source->devices ? source->config.ops->stop_devices(source->config.machine, err) : 0;

	if (!code && source->devices)
		device_sender_stopped(source->device_sender);
	return code;
}

int source_device_costs(struct migration_source *source, struct migration_costs *costs, struct err *err)
{
	struct device_sender_pending pending;
	int code = device_sender_get_pending(source->device_sender, &pending, err);

	if (code)
		return code;
	costs->device = pending.stop_bytes;
	costs->device_time = pending.stop_ns;
	costs->device_assumed = pending.assumed;
	costs->untold = source->config.ops->untold(source->config.machine);
	costs->ready = pending.ready;
	return 0;
}

int source_end_devices(struct migration_source *source, struct err *err)
{
	int code = 0;

	if (!source->devices)
		return 0;
	while (!code && !device_sender_done(source->device_sender, source->deadline.fd, monotonic_ms() + TICK_MS))
		code = source_tick(source, err);
	return code ?: device_sender_wait(source->device_sender, err);
}

/* ---- disks ---- */

int source_check_disks(const struct migration_source *source, struct err *err)
{
	if (source->config.request->copy_disks == MIGRATION_COPY_NONE ||
	    source->control->conversation.version >= WIRE_DISKS_SINCE)
		return 0;
	return err_set(err, -ENOTSUP, "the target's mvmm is too old for --copy-disks");
}

static int source_devices_start_copies(struct migration_source *source, struct err *err)
{
	struct disk_sender_options options = {.limiter = &source->limiter, .cancel_fd = source->deadline.fd,
					      .tick = source_tick, .opaque = source};
	const struct migration_machine_ops *ops = source->config.ops;
	struct channel *channel = NULL;
	int code;

	options.count = ops->disks ? ops->disks(source->config.machine, &options.disks) : 0;
	if (!options.count)
		return 0;
	code = dialer_connect(source->dialer, WIRE_DISK, 0, 1, &channel, err);
	code = code ?: disk_sender_create(&options, &channel, &source->disks, err);
	channel_destroy(channel);
	return code;
}

static int source_devices_start_flushes(struct migration_source *source, struct err *err)
{
	const struct migration_machine_ops *ops = source->config.ops;
	struct disk_shared disks[WIRE_MAX_DISKS];
	size_t count = ops->shared_disks ? ops->shared_disks(source->config.machine, disks) : 0;

	return count ? disk_flusher_create(disks, count, &source->flusher, err) : 0;
}

int source_start_disks(struct migration_source *source, struct err *err)
{
	int code = source_devices_start_copies(source, err) ?: source_devices_start_flushes(source, err);

	if (code)
		source_drop_disks(source, true);
	return code;
}

void source_drop_disks(struct migration_source *source, bool stays)
{
	disk_flusher_destroy(take_ptr(source->flusher));
	disk_sender_destroy(take_ptr(source->disks));
}

int source_end_disks(struct migration_source *source, struct err *err)
{
	disk_sender_collect(source->disks);
	return disk_sender_send(source->disks, 0, err) ?: disk_sender_end(source->disks, err);
}
