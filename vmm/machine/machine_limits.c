/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's limits: given to its devices, changed while it runs, and what is left of their bursts after a reboot. See
 * machine.h and machine_internal.h; the configuration has them. */
#include "vmm/machine/machine_internal.h"

static void machine_limits_set(struct virtio_device *device, const struct machine_limits *limits)
{
	for (size_t i = 0; i < limits->count; i++) {
		const struct machine_limit *limit = &limits->limits[i];

		virtio_device_set_limit(device, limit->index, limit->ops ? NULL : &limit->limit,
					limit->ops ? &limit->limit : NULL);
	}
}

void machine_limits_begin_device(const struct machine *machine, struct virtio_device *device)
{
	struct machine_limits limits;

	machine_config_limits(machine->config, device->id, &limits);
	machine_limits_set(device, &limits);
}

int machine_limits_begin(struct machine *machine, struct err *err)
{
	const struct token_bucket_limit limit = number_rate_limit(&machine->config->serial.bandwidth);

	for (size_t i = 0; i < machine->virtio_count; i++)
		machine_limits_begin_device(machine, virtio_transport_device(machine->virtio[i]));
	serial_set_limit(machine->serial, &limit);
	return 0;
}

static struct virtio_device *machine_limits_find(const struct machine *machine, const char *id)
{
	for (size_t i = 0; i < machine->virtio_count; i++)
		if (strcmp(virtio_transport_device(machine->virtio[i])->id, id) == 0)
			return virtio_transport_device(machine->virtio[i]);
	return NULL;
}

void machine_set_limits(struct machine *machine, const char *id, const struct machine_limits *limits)
{
	struct virtio_device *device = machine_limits_find(machine, id);

	if (device)
		machine_limits_set(device, limits);
	else if (limits->count && strcmp(id, "serial") == 0)
		serial_set_limit(machine->serial, &limits->limits[0].limit);
}

/* ---- bursts ---- */

/* What is left of the limiter's two, which have the rates bytes and ops. */
static void machine_limits_keep(const struct machine *machine, const char *id, unsigned int index,
				struct rate *bytes, struct rate *ops)
{
	struct virtio_device *device = machine_limits_find(machine, id);
	struct rate_limiter *limiter = device && device->ops->limiter ? device->ops->limiter(device, index) : NULL;
	struct rate_limiter_state state;

	if (!limiter)
		return;
	rate_limiter_save(limiter, &state, 0);
	bytes->burst = state.bytes.burst;
	ops->burst = state.ops.burst;
}

void machine_keep_bursts(const struct machine *machine, struct machine_config *config)
{
	for (size_t i = 0; i < config->disk_count; i++) {
		struct disk_config *disk = &config->disks[i];

		machine_limits_keep(machine, disk->id, 0, &disk->bandwidth, &disk->ops);
	}
	for (size_t i = 0; i < config->net_count; i++) {
		struct net_config *net = &config->nets[i];

		machine_limits_keep(machine, net->id, VIRTIO_NET_LIMIT_RX, &net->rx_bandwidth, &net->rx_packets);
		machine_limits_keep(machine, net->id, VIRTIO_NET_LIMIT_TX, &net->tx_bandwidth, &net->tx_packets);
	}
	machine_limits_keep(machine, "rng", 0, &config->rng.bandwidth, &config->rng.ops);
	config->serial.bandwidth.burst = serial_burst_left(machine->serial);
}
