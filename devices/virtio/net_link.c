/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link of virtio-net, as the guest and the backend see it. See net_internal.h; called by all files of the device.
 */
#include "devices/virtio/net_internal.h"

bool net_link_is_up(struct net_device *net)
{
	bool up;

	pthread_mutex_lock(&net->config_lock);
	up = net->link_up && !net->unplugged;
	pthread_mutex_unlock(&net->config_lock);
	return up;
}

void net_link_down(struct net_device *net)
{
	const char *reason = net->backend->ops->reason ? net->backend->ops->reason(net->backend) : NULL;
	bool was_up;

	pthread_mutex_lock(&net->config_lock);
	was_up = net->link_up;
	net->link_up = net->state.link_up = false;
	pthread_mutex_unlock(&net->config_lock);
	if (!was_up)
		return;
	log_warn(net->virtio.log, "%s: its network has ended, the link is down%s%s", net->virtio.id,
		 reason ? ": " : "", reason ?: "");
	/*
	 * Not virtio_device_config_changed: a thread that waits for this one to end may hold its lock. The generation
	 * is not needed for a field that is read in one piece.
	 */
	net->virtio.transport->notify_config(&net->virtio);
}
