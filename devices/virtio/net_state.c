/* SPDX-License-Identifier: Apache-2.0 */
/* The saved state of virtio-net. See net_internal.h. */
#include "devices/virtio/net_internal.h"

static int net_state_collect(void *object, void *saved, struct err *err)
{
	struct net_device *net = object;
	struct net_state *state = saved;

	rate_limiter_save(&net->rx, &state->rx_limit, monotonic_ns());
	rate_limiter_save(&net->tx, &state->tx_limit, monotonic_ns());
	return 0;
}

/* For an active device. */
static int net_state_judge_queues(const struct net_device *net, const struct net_state *state, struct err *err)
{
	if (!state->pairs_used || state->pairs_used > net->backend->pairs)
		return err_set(err, -EBADMSG, "%u pairs of queues are in use, of %u", state->pairs_used,
			       net->backend->pairs);
	for (unsigned int i = 0; i < 2u * state->pairs_used; i++)
		if (!net->virtio.queues[i].setup.enabled)
			return err_set(err, -EBADMSG, "queue %u is in use and not enabled", i);
	if (state->offloads & ~(net->virtio.features & NET_GUEST_OFFLOADS))
		return err_set(err, -EBADMSG, "offloads 0x%llx were not negotiated",
			       (unsigned long long)state->offloads);
	return 0;
}

static int net_state_judge(const void *object, const void *loaded, uint32_t version, struct err *err)
{
	const struct net_device *net = object;
	const struct net_state *state = loaded;

	if (state->mac[0] & 1)
		return err_set(err, -EBADMSG, "its MAC address is a multicast address");
	if (virtio_has(&net->virtio, VIRTIO_NET_F_MTU) && state->mtu > net->backend->mtu)
		return err_set(err, -ENOTSUP,
			       "the guest sends packets of up to %u bytes; the network here takes %u: set the "
			       "interface's MTU", state->mtu, net->backend->mtu);
	return net->virtio.active ? net_state_judge_queues(net, state, err) : 0;
}

/* Programs the backend as the one on the source was. */
static int net_state_set_backend(struct net_device *net, struct err *err)
{
	int ret = net->backend->ops->set_offloads(net->backend, net->state.offloads);

	return ret < 0 ? err_sys(err, ret, "offloads of the backend") : net_make_pairs(net, 1, err);
}

/* A driver that has read an MTU sends packets of that size; any other driver reads the MTU of this host. */
static int net_state_loaded(void *object, const void *state, struct err *err)
{
	struct net_device *net = object;

	if (!virtio_has(&net->virtio, VIRTIO_NET_F_MTU))
		net->state.mtu = net->backend->mtu;
	if (!net->virtio.active)
		net->state.link_up = net->link_up && !net->unplugged;
	net->loaded = net->virtio.active;
	rate_limiter_load(&net->rx, &net->state.rx_limit, monotonic_ns());
	rate_limiter_load(&net->tx, &net->state.tx_limit, monotonic_ns());
	return net->virtio.active ? net_state_set_backend(net, err) : 0;
}

static const struct state_field fields[] = {
	STATE_BYTES(struct net_state, mac, 1),
	STATE_BOOL(struct net_state, link_up, 1),
	STATE_UINT(struct net_state, mtu, 1),
	STATE_UINT(struct net_state, pairs_used, 1),
	STATE_UINT(struct net_state, offloads, 1),
	STATE_STRUCT(struct net_state, rx_limit, 2, &rate_limiter_state),
	STATE_STRUCT(struct net_state, tx_limit, 2, &rate_limiter_state),
};

/* Without config_lock: the threads that take it are parked, other users have the device's lock. */
const struct state_table net_state = {
	.name = "net", .version = 2, .oldest = 1, STATE_FIELDS(fields), STATE_IN(struct net_device, state),
	.collect = net_state_collect, .judge = net_state_judge, .loaded = net_state_loaded,
};
