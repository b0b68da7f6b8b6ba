/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pairs of virtio-net's queues have traffic, and who moves it: a thread of ours (net_pair.c) or the kernel
 * (net_vhost.c). See net_internal.h; called by the device and by its control queue.
 */
#include "devices/virtio/net_internal.h"

static int net_traffic_start_pair(struct net_device *net, unsigned int index, struct err *err)
{
	int ret = 0;

	/* A driver need not have enabled every queue that the device has. */
	if (!net->virtio.queues[2 * index].enabled || !net->virtio.queues[2 * index + 1].enabled)
		return err_set(err, -EINVAL, "%s: queue pair %u is not enabled", net->virtio.id, index);
	if (net->backend->ops->set_pair)
		ret = net->backend->ops->set_pair(net->backend, index, true);
	if (ret < 0)
		return err_sys(err, ret, "%s: queue %u of the backend", net->virtio.id, index);
	return net->vhosts[index] ? net_vhost_start(net, index, err)
				  : net_pair_start(net, index, &net->pairs[index], err);
}

static void net_traffic_stop_pair(struct net_device *net, unsigned int index)
{
	if (net->vhosts[index])
		net_vhost_stop(net, index);
	net_pair_stop(net->pairs[index]);
	net->pairs[index] = NULL;
}

int net_start_pairs(struct net_device *net, unsigned int index, struct err *err)
{
	for (unsigned int i = index; i < net->pairs_used; i++) {
		int ret = net_traffic_start_pair(net, i, err);

		if (ret < 0) {
			net_stop_pairs(net, index);
			return ret;
		}
	}
	return 0;
}

void net_stop_pairs(struct net_device *net, unsigned int index)
{
	for (unsigned int i = index; i < net->backend->pairs; i++)
		net_traffic_stop_pair(net, i);
}

void net_detach_pairs(struct net_device *net, unsigned int index)
{
	if (!net->backend->ops->set_pair)
		return;
	for (unsigned int i = index; i < net->backend->pairs; i++)
		net->backend->ops->set_pair(net->backend, i, false);
}
