/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2 section 5.1): features, config space and virtio_device_ops. See net_internal.h for the rest.
 *
 * The queues are rx0, tx0, rx1, tx1, ... and the control queue after those that the driver uses. One pair is in use
 * until the driver asks for more.
 */
#include "devices/virtio/net_internal.h"
#include "core/thread.h"
#include "devices/virtio/virtio_layout.h"

#include <stdio.h>

static struct net_device *net_to_net(struct virtio_device *device)
{
	return container_of(device, struct net_device, virtio);
}

static void net_config_read(struct virtio_device *device, unsigned int offset, void *data, unsigned int len)
{
	struct net_device *net = net_to_net(device);
	struct virtio_layout_net config = {
		.max_virtqueue_pairs = htole16((uint16_t)net->backend->pairs),
		.mtu = htole16(net->state.mtu),
	};

	pthread_mutex_lock(&net->config_lock);
	memcpy(config.mac, net->state.mac, sizeof(config.mac));
	config.status = htole16((net->state.link_up ? VIRTIO_NET_S_LINK_UP : 0) |
				(net->announce ? VIRTIO_NET_S_ANNOUNCE : 0));
	pthread_mutex_unlock(&net->config_lock);
	virtio_config_copy(&config, sizeof(config), offset, data, len);
}

static int net_go_on(struct net_device *net, struct err *err)
{
	int ret;

	virtio_device_run_limits(&net->virtio, true);
	ret = net_run_pairs(net, 0, err);
	return ret ?: net_ctrl_run(net, err);
}

static void net_stop(struct net_device *net)
{
	net_ctrl_end(net);
	net_end_pairs(net, 0);
}

static int net_prepare(struct virtio_device *device, struct err *err)
{
	struct net_device *net = net_to_net(device);
	int ret;

	net->state.pairs_used = 1;
	net->state.offloads = device->features & NET_GUEST_OFFLOADS;
	ret = net->backend->ops->set_offloads(net->backend, net->state.offloads);
	if (ret < 0)
		return err_sys(err, ret, "%s: offloads of the backend", net->virtio.id);
	ret = net_make_pairs(net, 0, err);
	ret = ret ?: net_ctrl_make(net, err);
	if (ret < 0)
		net_stop(net);
	return ret;
}

static int net_activate(struct virtio_device *device, struct err *err)
{
	int ret = net_prepare(device, err);

	if (ret < 0)
		return ret;
	ret = net_go_on(net_to_net(device), err);
	if (ret < 0)
		net_stop(net_to_net(device));
	return ret;
}

/* Updates the link that the guest sees; true if it has changed, on another host. */
static bool net_tell_link(struct net_device *net)
{
	bool changed;

	pthread_mutex_lock(&net->config_lock);
	changed = net->state.link_up != (net->link_up && !net->unplugged);
	net->state.link_up = net->link_up && !net->unplugged;
	pthread_mutex_unlock(&net->config_lock);
	return changed;
}

static void net_reset(struct virtio_device *device)
{
	struct net_device *net = net_to_net(device);

	net_stop(net);
	net->loaded = false;
	net_tell_link(net);
	pthread_mutex_lock(&net->config_lock);
	memcpy(net->state.mac, net->mac, sizeof(net->mac));
	pthread_mutex_unlock(&net->config_lock);
	net->state.pairs_used = 0;
	net->state.offloads = 0;
	net_detach_pairs(net, 1);
	net->backend->ops->set_offloads(net->backend, 0);
}

static int net_drain(struct virtio_device *device, int64_t deadline, struct err *err)
{
	struct net_device *net = net_to_net(device);
	int ret = net_ctrl_park(net, deadline) ?: net_park_pairs(net, deadline);

	if (ret < 0)
		return err_set(err, ret, "%s: its network has not taken its packets", device->id);
	virtio_device_run_limits(device, false);
	return 0;
}

static struct rate_limiter *net_limiter(struct virtio_device *device, unsigned int index)
{
	struct net_device *net = net_to_net(device);

	if (net->vhosts[0]) /* the kernel moves the packets */
		return NULL;
	return index == VIRTIO_NET_LIMIT_RX ? &net->rx : index == VIRTIO_NET_LIMIT_TX ? &net->tx : NULL;
}

/* What can fail here: the kernel is programmed again (vhost=on), and the first one after a load starts the threads. */
static void net_resume(struct virtio_device *device)
{
	struct net_device *net = net_to_net(device);
	struct err err;

	if (net->loaded)
		net_announce_begin(net);
	if (net_tell_link(net) || net->mac_changed)
		virtio_device_config_changed(device);
	net->loaded = net->mac_changed = false;
	if (net_go_on(net, &err) < 0) {
		log_error(device->log, "%s", err.text);
		virtio_device_broken(device, "it could not be restarted");
	}
}

static void net_call_changed(struct virtio_device *device, unsigned int queue)
{
	struct net_device *net = net_to_net(device);

	pthread_mutex_lock(&net->ctrl_lock); /* the control queue starts and stops pairs */
	net_vhost_call_changed(net, queue);
	pthread_mutex_unlock(&net->ctrl_lock);
}

static void net_destroy(struct virtio_device *device)
{
	struct net_device *net = net_to_net(device);

	for (unsigned int i = 0; i < NET_MAX_PAIRS; i++)
		vhost_close(net->vhosts[i]);
	if (net->backend)
		net->backend->ops->destroy(net->backend);
	virtio_device_done(device);
	pthread_mutex_destroy(&net->config_lock);
	pthread_mutex_destroy(&net->ctrl_lock);
	free(net->counts);
	rate_limiter_done(&net->rx);
	rate_limiter_done(&net->tx);
	free(net);
}

static const struct virtio_device_ops net_ops = {
	.config_read = net_config_read,
	.activate = net_activate,
	.prepare = net_prepare,
	.reset = net_reset,
	.drain = net_drain,
	.resume = net_resume,
	.call_changed = net_call_changed,
	.limiter = net_limiter,
	.destroy = net_destroy,
	.state = &net_state,
};

int virtio_net_ready(struct virtio_device *device, struct err *err)
{
	struct net_backend *backend = net_to_net(device)->backend;

	return backend->ops->ready ? backend->ops->ready(backend, err) : 0;
}

void virtio_net_set_mac(struct virtio_device *device, const uint8_t mac[6])
{
	struct net_device *net = net_to_net(device);

	pthread_mutex_lock(&net->config_lock);
	memcpy(net->mac, mac, sizeof(net->mac));
	memcpy(net->state.mac, mac, sizeof(net->state.mac));
	pthread_mutex_unlock(&net->config_lock);
	net->mac_changed = true;
}

void virtio_net_make_mac(uint8_t mac[6], const char *machine, const char *id)
{
	uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */

	for (const char *p = machine ?: ""; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3ull;
	hash = (hash ^ '/') * 0x100000001b3ull;
	for (const char *p = id; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3ull;
	hash ^= hash >> 32;
	mac[0] = 0x02;
	for (unsigned int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(hash >> (8 * (i - 1)));
}

/* The address that was asked for, or the machine's own. */
static void net_choose_mac(const struct virtio_net_options *options, uint8_t mac[6])
{
	static const uint8_t none[6];

	if (memcmp(options->mac, none, sizeof(none)) == 0)
		virtio_net_make_mac(mac, options->machine, options->id);
	else
		memcpy(mac, options->mac, sizeof(options->mac));
}

static int net_set_state(struct net_device *net, const struct virtio_net_options *options, struct err *err)
{
	if (options->mac[0] & 1)
		return err_set(err, -EINVAL, "mac: a multicast address; the first byte must be even, for instance 02");
	net_choose_mac(options, net->mac);
	memcpy(net->state.mac, net->mac, sizeof(net->mac));
	net->link_up = true;
	net->unplugged = options->unplugged;
	net->state.link_up = !net->unplugged;
	net->state.mtu = net->backend->mtu;
	net->state.rx_limit = net->state.tx_limit = (struct rate_limiter_state)RATE_LIMITER_FULL;
	return 0;
}

static uint64_t net_offered(const struct net_backend *backend)
{
	uint64_t features = backend->features | NET_BIT(VIRTIO_NET_F_MAC) | NET_BIT(VIRTIO_NET_F_STATUS) |
			    NET_BIT(VIRTIO_NET_F_MRG_RXBUF) | NET_BIT(VIRTIO_NET_F_CTRL_VQ) |
			    NET_BIT(VIRTIO_NET_F_CTRL_RX) | NET_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
			    NET_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);

	if (features & NET_GUEST_OFFLOADS)
		features |= NET_BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	if (backend->pairs > 1)
		features |= NET_BIT(VIRTIO_NET_F_MQ);
	if (backend->mtu)
		features |= NET_BIT(VIRTIO_NET_F_MTU);
	return features;
}

void virtio_net_count(struct virtio_device *device, struct virtio_net_counts *ret)
{
	const struct net_device *net = container_of(device, struct net_device, virtio);

	*ret = (struct virtio_net_counts){0};
	for (unsigned int i = 0; i < net->backend->pairs; i++) {
		const struct virtio_net_counts *counts = &net->counts[i];

		ret->rx_packets += counter_read(&counts->rx_packets);
		ret->rx_bytes += counter_read(&counts->rx_bytes);
		ret->rx_dropped += counter_read(&counts->rx_dropped);
		ret->tx_packets += counter_read(&counts->tx_packets);
		ret->tx_bytes += counter_read(&counts->tx_bytes);
	}
}

static int net_init(struct net_device *net, const struct virtio_net_options *options, struct guest_memory *memory,
		    const struct log *log, struct err *err)
{
	uint16_t sizes[2 * NET_MAX_PAIRS + 1];
	unsigned int queues = 2 * net->backend->pairs + 1;
	int ret;

	for (unsigned int i = 0; i < queues; i++)
		sizes[i] = i == queues - 1 ? 64 : NET_QUEUE_SIZE;
	ret = virtio_device_init(&net->virtio, &net_ops, options->id, VIRTIO_ID_NET, queues, sizes, memory, log, err);
	if (ret < 0)
		return ret;
	ret = net_set_state(net, options, err);
	if (ret < 0)
		return ret;
	net->virtio.class_code = 0x020000; /* Ethernet controller */
	net->virtio.config_size = sizeof(struct virtio_layout_net);
	net->virtio.offered |= net_offered(net->backend);
	net_detach_pairs(net, 1);
	net->counts = counter_alloc(net->backend->pairs, sizeof(*net->counts));
	if (!net->counts)
		return err_sys(err, -ENOMEM, "%s", options->id);
	return options->vhost ? net_vhost_open(net, options->dirty, err) : 0;
}

int net_create(const struct virtio_net_options *options, struct net_backend *backend, struct guest_memory *memory,
	       const struct log *log, struct virtio_device **ret, struct err *err)
{
	struct net_device *net = calloc(1, sizeof(*net));
	int code;

	if (!net)
		return err_sys(err, -ENOMEM, "virtio-net");
	pthread_mutex_init(&net->config_lock, NULL);
	pthread_mutex_init(&net->ctrl_lock, NULL);
	net->backend = backend;
	net->hold_ms = NET_HOLD_MS;
	rate_limiter_init(&net->rx);
	rate_limiter_init(&net->tx);
	code = net_init(net, options, memory, log, err);
	if (code < 0) {
		net->backend = NULL; /* stays the caller's */
		net_destroy(&net->virtio);
		return code;
	}
	*ret = &net->virtio;
	return 0;
}

static int net_make(const struct virtio_net_options *options, struct guest_memory *memory, const struct log *log,
		    struct virtio_device **ret, struct err *err)
{
	struct virtio_net_options chosen = *options;
	struct net_backend *backend;
	int code;

	if (options->queues < 1 || options->queues > NET_MAX_PAIRS)
		return err_set(err, -EINVAL, "--net queues=%u: 1 to %u", options->queues, NET_MAX_PAIRS);
	if (options->passt && (options->vhost || options->queues > 1))
		return err_set(err, -EINVAL, "--net passt: %s needs a tap; leave it out or use tap=NAME",
			       options->vhost ? "vhost=on" : "queues");
	net_choose_mac(options, chosen.mac);
	code = options->passt ? net_passt_open(&chosen, &backend, err) : net_tap_open(&chosen, &backend, err);
	if (code < 0)
		return code;
	code = net_create(&chosen, backend, memory, log, ret, err);
	if (code < 0)
		backend->ops->destroy(backend);
	return code;
}

struct creation {
	const struct virtio_net_options *options;
	struct guest_memory *memory;
	const struct log *log;
	struct virtio_device **ret;
	struct err *err;
};

static int net_do_make(void *argument)
{
	const struct creation *creation = argument;

	return net_make(creation->options, creation->memory, creation->log, creation->ret, creation->err);
}

/* A tap and vhost take calls that are not needed afterwards. */
int virtio_net_create(const struct virtio_net_options *options, struct guest_memory *memory, const struct log *log,
		      struct virtio_device **ret, struct err *err)
{
	return thread_call(net_do_make, &(struct creation){options, memory, log, ret, err});
}
