/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts and stops the queue pairs of virtio-net: a thread of ours (net_pair.c) or the kernel (net_vhost.c) moves their
 * packets. See net_internal.h; called by the device and by its control queue.
 */
#include "devices/virtio/net_internal.h"

static int net_traffic_make_pair(struct net_device *net, unsigned int index, struct err *err)
{
	int ret = 0;

	/* A driver need not enable all queues of the device. */
	if (!net->virtio.queues[2 * index].setup.enabled || !net->virtio.queues[2 * index + 1].setup.enabled)
		return err_set(err, -EINVAL, "%s: queue pair %u is not enabled", net->virtio.id, index);
	if (net->backend->ops->set_pair)
		ret = net->backend->ops->set_pair(net->backend, index, true);
	if (ret < 0)
		return err_sys(err, ret, "%s: queue %u of the backend", net->virtio.id, index);
	return net->vhosts[index] ? 0 : net_pair_make(net, index, err);
}

int net_make_pairs(struct net_device *net, unsigned int index, struct err *err)
{
	int ret = 0;

	for (unsigned int i = index; i < net->state.pairs_used && ret == 0; i++)
		ret = net_traffic_make_pair(net, i, err);
	if (ret < 0)
		net_end_pairs(net, index);
	return ret;
}

static int net_traffic_run_pair(struct net_device *net, unsigned int index, struct err *err)
{
	int ret;

	if (net->vhosts[index])
		return net_vhost_start(net, index, err);
	ret = virtio_thread_resume(&net->threads[index]);
	return ret < 0 ? err_sys(err, ret, "%s: thread of queue pair %u", net->virtio.id, index) : 0;
}

int net_run_pairs(struct net_device *net, unsigned int index, struct err *err)
{
	int ret = 0;

	for (unsigned int i = index; i < net->state.pairs_used && ret == 0; i++)
		ret = net_traffic_run_pair(net, i, err);
	if (ret < 0)
		net_end_pairs(net, index);
	return ret;
}

int net_park_pairs(struct net_device *net, int64_t deadline)
{
	int ret = 0;

	for (unsigned int i = 0; i < net->state.pairs_used; i++)
		virtio_thread_pause(&net->threads[i]);
	for (unsigned int i = 0; i < net->state.pairs_used && ret == 0; i++)
		ret = virtio_thread_wait(&net->threads[i], deadline);
	for (unsigned int i = 0; i < net->state.pairs_used && ret == 0; i++)
		net_vhost_stop(net, i);
	return ret;
}

void net_end_pairs(struct net_device *net, unsigned int index)
{
	for (unsigned int i = index; i < net->backend->pairs; i++) {
		net_vhost_stop(net, i);
		net_pair_end(net, i);
	}
}

void net_detach_pairs(struct net_device *net, unsigned int index)
{
	if (!net->backend->ops->set_pair)
		return;
	for (unsigned int i = index; i < net->backend->pairs; i++)
		net->backend->ops->set_pair(net->backend, i, false);
}
