/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cable of virtio-net, which the user plugs in and out. While it is out, the pairs' threads drop what both sides send
 * (net_pair.c), and vhost moves nothing. See net_internal.h; called by the machine.
 */
#include "devices/virtio/net_internal.h"

#include "core/monotonic.h"

#define LOCK_MS 100 /* longer than an access of the guest that does not wait for the device */

/* vhost moves no packets while it is out. A drained or inactive device finds that when it is started. */
static int net_cable_switch_vhost(struct net_device *net, struct err *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < net->state.pairs_used && net->ctrl_running && ret == 0; i++)
		if (net->vhosts[i] && net->unplugged)
			net_vhost_stop(net, i);
		else if (net->vhosts[i])
			ret = net_vhost_start(net, i, err);
	return ret;
}

static void net_cable_plug(struct net_device *net, bool plugged)
{
	pthread_mutex_lock(&net->config_lock);
	__atomic_store_n(&net->unplugged, !plugged, __ATOMIC_RELAXED);
	net->state.link_up = net->link_up && plugged;
	pthread_mutex_unlock(&net->config_lock);
}

int virtio_net_set_link(struct virtio_device *device, bool plugged, struct err *err)
{
	struct net_device *net = container_of(device, struct net_device, virtio);
	const struct timespec until = monotonic_deadline(monotonic_ms() + LOCK_MS);
	int ret;

	if (net_link_unplugged(net) == !plugged)
		return 0;
	if (pthread_mutex_clocklock(&device->lock, CLOCK_MONOTONIC, &until))
		return err_set(err, -EBUSY, "%s: the guest waits for it, and it does not answer", device->id);
	pthread_mutex_lock(&net->ctrl_lock);
	net_cable_plug(net, plugged);
	ret = net_cable_switch_vhost(net, err);
	pthread_mutex_unlock(&net->ctrl_lock);
	virtio_device_config_changed(device);
	pthread_mutex_unlock(&device->lock);
	return ret;
}

bool virtio_net_link(struct virtio_device *device)
{
	return !net_link_unplugged(container_of(device, struct net_device, virtio));
}
